"""Experiment files that are good: what they mean, and what they leave to defaults."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from pydantic import ValidationError

from tidings.links.shape import LinkShape, NicShape
from tidings.partitions.dirichlet import Dirichlet
from tidings.problems.mnist_5k import Mnist5k
from tidings.protocols.compressed.choco_sgd import ChocoSGD
from tidings.registry import base_directory
from tidings.units import Duration
from tidings_coordinator.experiment import Experiment, load, loads
from tidings_coordinator.launchers.local import Local
from tidings_coordinator.topology.custom import Custom
from tidings_coordinator.topology.ring import Ring

pytestmark = pytest.mark.unit

QUICKSTART = """\
# eight nodes on a ring, over a slow and lossy network
nodes: 8
seed: 7
topology: {kind: ring, mixing: metropolis_hastings}
network:
  rate: 20Mbit/s
  delay: 20ms
  jitter: 2ms
  loss: 0.1%
  nic: {egress: 100Mbit/s, ingress: 100Mbit/s}
  links: [{on: 0<->1, rate: 1Mbit/s}]
problem: {kind: mnist_5k, model: mlp, batch_size: 32, partition: {kind: dirichlet, alpha: 0.3}}
protocol: {kind: choco_sgd, lr: 0.05, compressor: {kind: top_k, ratio: 5%}}
byzantine: {on: [3], attack: {kind: sign_flip}}
stop: {rounds: 200}
evaluate: {every: 10}
launcher: {kind: local}
"""

MINIMAL = "nodes: 8\nproblem: quadratic\nprotocol: {kind: d_psgd, lr: 0.1}\nstop: {rounds: 3}\n"


def network_of(section: str, nodes: int = 8) -> Experiment:
    return loads(MINIMAL.replace("nodes: 8", f"nodes: {nodes}") + section)


def test_quickstart(tmp_path: Path) -> None:
    (tmp_path / "quick-start.yaml").write_text(QUICKSTART)
    found = load(tmp_path / "quick-start.yaml")
    assert found.name == "quick-start"
    assert (found.nodes, found.seed, found.stop.rounds) == (8, 7, 200)
    assert found.problem == Mnist5k(partition=Dirichlet(alpha=0.3))
    assert found.protocol == ChocoSGD(lr=0.05)
    assert found.byzantine is not None
    assert found.byzantine.on == (3,)
    fast = LinkShape(20e6, 20_000_000, 2_000_000, "uniform", 0.001)
    assert found.network.shape(4, 5) == fast
    slow = LinkShape(1e6, 20_000_000, 2_000_000, "uniform", 0.001)
    assert found.network.shape(0, 1) == found.network.shape(1, 0) == slow
    assert found.network.nic_of(2) == NicShape(100e6, 100e6)


def test_defaults() -> None:
    found = loads(MINIMAL, "some/where/first_try.yaml")
    assert found.name == "first_try"
    assert found.seed == 0
    assert found.topology == Ring()
    assert found.launcher == Local()
    assert found.network.shape(0, 1) == LinkShape(math.inf, 0, 0, "uniform", 0.0, 16 << 20)
    assert found.network.nic_of(0) == NicShape(math.inf, math.inf)
    assert (found.network.time_scale, found.network.probe) == (1.0, True)
    assert (found.network.tolerance.rate, found.network.tolerance.delay) == (0.05, 0.002)
    assert (found.compute.time, found.compute.simulated) == ("native", 0.002)
    assert (found.compute.spread, found.compute.slow) == (0.0, ())
    assert (found.wait.for_, found.wait.timeout) == ("all", 30.0)
    assert found.evaluate.every == 10
    assert (found.byzantine, found.target) == (None, None)
    assert (found.metrics.serve, found.metrics.linger, found.records.trace) == (True, 0.0, False)


def test_a_name_in_the_file_comes_before_that_of_the_file() -> None:
    assert loads(MINIMAL + "name: other", "q.yaml").name == "other"


def test_an_experiment_is_read_only() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        loads(MINIMAL).nodes = 3


@pytest.mark.parametrize(
    ("text", "every"), [("20", 20), ("500ms", Duration(0.5)), ("2min", Duration(120))]
)
def test_evaluations_are_counted_or_timed(text: str, every: int | Duration) -> None:
    found = loads(MINIMAL + f"evaluate: {{every: {text}}}").evaluate.every
    assert found == every
    assert type(found) is type(every)


def test_anchors_save_writing() -> None:
    text = MINIMAL + (
        "network:\n  links:\n    - &slow {on: 0->1, rate: 1Mbit/s}\n    - {<<: *slow, on: 1->2}\n"
    )
    network = loads(text).network
    assert network.shape(1, 2) == network.shape(0, 1) != network.shape(2, 3)


# -- nodes and links -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("on", "nodes"),
    [
        ("3", (3,)),
        ("[3, 1, 3]", (1, 3)),
        ("0..2", (0, 1, 2)),
        ("['2', 4..5, 5 .. 6]", (2, 4, 5, 6)),
        ("a", (1, 2)),
        ("[both, 7]", (0, 1, 2, 7)),
    ],
)
def test_ways_to_name_nodes(on: str, nodes: tuple[int, ...]) -> None:
    # a group may use one that comes later
    section = (
        f"network: {{groups: {{both: [a, 0], a: 1..2}}}}\nbyzantine: {{on: {on}, attack: ipm}}"
    )
    found = loads(MINIMAL + section)
    assert found.byzantine is not None
    assert found.byzantine.on == nodes
    assert found.network.groups == {"both": (0, 1, 2), "a": (1, 2)}


def test_all_nodes_and_slow_ones() -> None:
    section = "compute: {slow: [{on: all, factor: 2}, {on: [1], factor: 1.5}], time: 3ms}"
    compute = loads(MINIMAL + section).compute
    assert [slow.on for slow in compute.slow] == [tuple(range(8)), (1,)]
    assert compute.time == Duration(0.003)


@pytest.mark.parametrize(
    ("on", "links"),
    [
        ("0->1", {(0, 1)}),
        ("0<->1", {(0, 1), (1, 0)}),
        ("0 -> 1", {(0, 1)}),
        ("a->b", {(0, 2), (0, 3), (1, 2), (1, 3)}),
        ("a<->3", {(0, 3), (1, 3), (3, 0), (3, 1)}),
        ("3->0..1", {(3, 0), (3, 1)}),
        ("a", {(0, 1), (1, 0)}),
        ("1..2", {(1, 2), (2, 1)}),
        ("all->0", {(1, 0), (2, 0), (3, 0)}),
        ("all", {(i, j) for i in range(4) for j in range(4) if i != j}),
    ],
)
def test_ways_to_name_links(on: str, links: set[tuple[int, int]]) -> None:
    section = f"network: {{groups: {{a: [0, 1], b: [2, 3]}}, links: [{{on: {on}, loss: 50%}}]}}"
    network = network_of(section, nodes=4).network
    pairs = [(i, j) for i in range(4) for j in range(4) if i != j]
    assert {pair for pair in pairs if network.shape(*pair).loss == 0.5} == links


def test_later_overrides_win_key_by_key() -> None:
    network = network_of(
        """\
network:
  rate: 10Mbit/s
  queue: 1MiB
  nic: {egress: 50Mbit/s}
  links:
    - {on: all, delay: 5ms, jitter: 1ms, jitter_kind: normal}
    - {on: 0->1, delay: 9ms, queue: 2MiB, rate: unlimited}
  nics:
    - {on: [0, 1], ingress: 30Mbit/s}
    - {on: [1], ingress: 20Mbit/s, egress: unlimited}
"""
    ).network
    assert network.shape(1, 0) == LinkShape(10e6, 5_000_000, 1_000_000, "normal", 0.0, 1 << 20)
    assert network.shape(0, 1) == LinkShape(math.inf, 9_000_000, 1_000_000, "normal", 0.0, 2 << 20)
    assert network.nic_of(0) == NicShape(50e6, 30e6)
    assert network.nic_of(1) == NicShape(math.inf, 20e6)
    assert network.nic_of(2) == NicShape(50e6, math.inf)


# -- files beside the experiment -------------------------------------------------------------------


def test_paths_start_at_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "edges.txt").write_text("0 1\n")
    text = MINIMAL + "topology: {kind: custom, file: ../edges.txt}"
    (tmp_path / "deep" / "q.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    before = base_directory.get()
    assert load("deep/q.yaml").topology == Custom(file=str(tmp_path / "edges.txt"))
    assert base_directory.get() == before
