"""The resolved file: every default in it, and the same experiment when it is read again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from tidings_coordinator.experiment import Experiment, dump, load, loads

pytestmark = pytest.mark.unit

MINIMAL = "nodes: 8\nproblem: quadratic\nprotocol: {kind: d_psgd, lr: 0.1}\nstop: {rounds: 3}\n"
NODES = 6

ratios = st.floats(0, 1) | st.sampled_from(["5%", "0.1%", "33.3%", "100%"])
durations = st.builds("{!r}{}".format, st.floats(1e-3, 1e4), st.sampled_from(["us", "ms", "s"]))
rates = st.just("unlimited") | st.builds(
    "{!r}{}".format, st.floats(1e-2, 1e4), st.sampled_from(["bit/s", "kbit/s", "Mbit", "Gbit/s"])
)
sizes = st.builds("{}{}".format, st.integers(1, 1000), st.sampled_from(["B", "KiB", "MiB"]))
factors = st.floats(1, 1e6)
jitter_kinds = st.sampled_from(["uniform", "normal", "exponential", "pareto"])
node_lists = st.lists(
    st.integers(0, NODES - 2) | st.sampled_from(["0..3", "fast", "both"]), min_size=1, max_size=3
)
link_selectors = st.sampled_from(["0<->1", "2->5", "fast->both", "fast<->3", "both", "all", "1..4"])


def some(**parts: SearchStrategy[Any]) -> SearchStrategy[dict[str, Any]]:
    """Mappings with any of these keys."""
    return st.fixed_dictionaries({}, optional=parts)


def changing(
    on: SearchStrategy[Any], **parts: SearchStrategy[Any]
) -> SearchStrategy[dict[str, Any]]:
    """Mappings with any of these keys, but not with none."""
    return st.fixed_dictionaries({"on": on}, optional=parts).filter(lambda found: len(found) > 1)


shapes = {
    "rate": rates,
    "delay": durations,
    "jitter": durations,
    "jitter_kind": jitter_kinds,
    "loss": ratios,
    "queue": sizes,
}
cards = {"egress": rates, "ingress": rates}
networks = some(
    **shapes,
    nic=some(**cards),
    nics=st.lists(changing(node_lists, **cards), max_size=2),
    links=st.lists(changing(link_selectors, **shapes), max_size=3),
    time_scale=st.floats(1e-3, 1e3),
    probe=st.booleans(),
    tolerance=some(rate=ratios, delay=durations),
).map(lambda network: network | {"groups": {"both": ["fast", 0], "fast": ["1..2"]}})
topologies = st.sampled_from(
    [
        "ring",
        "star",
        {"kind": "erdos_renyi", "p": "45%", "resample": 3},
        {"kind": "custom", "edges": ["0<->1", "1->2"], "mixing": "uniform"},
        {"kind": "sequence", "of": ["ring", {"kind": "grid", "mixing": {"kind": "lazy"}}]},
    ]
)
problems = st.sampled_from(["quadratic", "least_squares"]) | st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["mnist_5k", "digits"]),
        "partition": st.builds(
            lambda alpha: {"kind": "dirichlet", "alpha": alpha}, st.floats(1e-3, 1e3)
        ),
        "model": st.sampled_from(["mlp", "cnn"]),
        "batch_size": st.none() | st.integers(1, 100),
    }
)
compressors = st.sampled_from(["sign", {"kind": "qsgd", "levels": 7}]) | st.builds(
    lambda ratio: {"kind": "top_k", "ratio": ratio}, st.floats(1e-3, 1)
)
protocols = st.builds(lambda lr: {"kind": "d_psgd", "lr": lr}, st.floats(1e-9, 10)) | (
    st.fixed_dictionaries(
        {"kind": st.just("choco_sgd"), "lr": st.floats(1e-9, 10), "compressor": compressors}
    )
)
checks = st.sampled_from(
    [
        "accounting",
        {"check": "accuracy", ">=": "85%", "<": 1.0, "at": {"round": 3}},
        {"check": "loss", "<": 1e-7, "at": "3ms", "over": "lowest"},
        {"check": "metric", "name": "distance", ">": -3},
        {"check": "final_state", "nodes": ["fast", 0], "is": "dead"},
        {"check": "fidelity", "rate_error": "1%", "lag": "3ms"},
        {"check": "conservation", "of": "weight", "equals": 6},
    ]
)
experiments = st.fixed_dictionaries(
    {
        "name": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,9}", fullmatch=True),
        "nodes": st.just(NODES),
        "problem": problems,
        "protocol": protocols,
        "stop": some(rounds=st.integers(1), time=durations, bytes=sizes, accuracy=ratios).filter(
            bool
        ),
    },
    optional={
        "seed": st.integers(0),
        "topology": topologies,
        "byzantine": st.fixed_dictionaries(
            {"on": node_lists, "attack": st.sampled_from(["alie", {"kind": "sign_flip"}])}
        ),
        "compute": some(
            time=st.just("native") | durations,
            simulated=durations,
            spread=st.floats(0, 10),
            slow=st.lists(st.fixed_dictionaries({"on": node_lists, "factor": factors})),
        ),
        "wait": some(
            **{"for": st.sampled_from(["all", "live"]) | st.integers(1, NODES - 1)},
            timeout=durations,
        ),
        "evaluate": some(every=st.integers(1) | durations),
        "target": some(accuracy=ratios) | some(loss=st.floats(allow_nan=False, width=32)),
        "expect": st.lists(checks, max_size=3),
        "launcher": st.sampled_from(["local", {"kind": "simulator", "tie_seed": 3}]),
        "metrics": some(serve=st.booleans(), linger=durations),
        "records": some(trace=st.booleans()),
    },
)


def valid(data: dict[str, Any]) -> dict[str, Any]:
    """Without what the strategies cannot say on their own."""
    target = data.get("target")
    if not target or abs(target.get("loss", 0)) == float("inf"):
        data.pop("target", None)
    return data


@given(experiments.map(valid), networks)
@settings(deadline=None, max_examples=50)
def test_what_is_written_reads_as_the_same_experiment(
    data: dict[str, Any], network: dict[str, Any]
) -> None:
    experiment = Experiment.model_validate(data | {"network": network})
    text = dump(experiment)
    again = loads(text)
    assert again == experiment
    assert dump(again) == text


def test_every_default_is_in_plain_sight() -> None:
    assert (
        dump(loads(MINIMAL, "q.yaml"))
        == """\
name: q
seed: 0
nodes: 8
topology:
  kind: ring
  mixing:
    kind: metropolis_hastings
  directed: false
network:
  rate: unlimited
  delay: 0s
  jitter: 0s
  jitter_kind: uniform
  loss: 0%
  queue: 16MiB
  nic:
    egress: unlimited
    ingress: unlimited
  nics: []
  groups: {}
  links: []
  enforce: user
  time_scale: 1.0
  probe: true
  tolerance:
    rate: 5%
    delay: 2ms
problem:
  kind: quadratic
  dim: 20
  mu: 1.0
  smoothness: 10.0
  heterogeneity: 1.0
  noise: 0.0
  structure: dense
protocol:
  kind: d_psgd
  lr: 0.1
byzantine: null
faults: []
compute:
  time: native
  simulated: 2ms
  spread: 0.0
  slow: []
wait:
  for: all
  timeout: 30s
  heartbeat: null
  suspect_after: null
stop:
  rounds: 3
  time: null
  bytes: null
  accuracy: null
evaluate:
  every: 10
target: null
expect: []
launcher:
  kind: local
  host: 127.0.0.1
  port: 0
  grace: 0s
metrics:
  serve: true
  host: null
  linger: 0s
monitor:
  serve: true
  host: 127.0.0.1
  port: 0
  page: true
security:
  tls: auto
checkpoint:
  every: null
  keep: 4
records:
  trace: false
  order: false
  timeline: true
"""
    )


def test_an_override_is_written_as_it_was_given() -> None:
    text = MINIMAL + "network: {groups: {a: 0..1}, links: [{on: a <-> 3, loss: 0.25}]}"
    network = yaml.safe_load(dump(loads(text)))["network"]
    assert network["links"] == [{"on": "a<->3", "loss": "25%"}]
    assert network["groups"] == {"a": [0, 1]}


@pytest.mark.parametrize("name", ["on", "true", "null", "12", "1e3", "010", "0x1F", "yes", "2026"])
def test_text_that_looks_like_something_else_stays_text(name: str) -> None:
    assert loads(dump(loads(MINIMAL + f"name: '{name}'"))).name == name


def test_files_of_the_user_have_absolute_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """\
from dataclasses import dataclass
from tidings.api import Node, Protocol

@dataclass(frozen=True)
class Mine(Protocol):
    lr: float = 0.5
    async def run(self, node: Node) -> None: ...
"""
    (tmp_path / "mine.py").write_text(code)
    (tmp_path / "edges.txt").write_text("0 1\n")
    text = MINIMAL.replace("{kind: d_psgd, lr: 0.1}", "mine.py:Mine")
    (tmp_path / "q.yaml").write_text(text + "topology: {kind: custom, file: edges.txt}\n")
    experiment = load(tmp_path / "q.yaml")
    resolved = dump(experiment)
    assert f"kind: {tmp_path}/mine.py:Mine\n  lr: 0.5\n" in resolved
    assert f"file: {tmp_path}/edges.txt\n" in resolved
    monkeypatch.chdir("/")
    assert loads(resolved) == experiment
