"""A simulated run that was interrupted and resumed ends with the bits of one that was not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tidings.errors import UserError
from tidings_coordinator.control.watch import Watcher
from tidings_coordinator.experiment.load import loads
from tidings_coordinator.records.directory import read_lines
from tidings_coordinator.records.series import curve
from tidings_coordinator.resuming import resume
from tidings_coordinator.running import run_experiment

pytestmark = [pytest.mark.sim, pytest.mark.timeout(120)]

FILE = """
name: kept
nodes: 4
topology: {kind: ring}
network: {rate: 20Mbit/s, delay: 5ms, jitter: 1ms}
problem: {kind: quadratic, dim: 8}
protocol: {kind: d_psgd, lr: 0.05}
compute: {spread: 0.3}
wait: {timeout: 100ms}
checkpoint: {every: 5}
stop: {rounds: 24}
evaluate: {every: 2}
launcher: {kind: simulator}
monitor: {serve: false}
"""

DIGITS = "problem={kind: digits, hidden: 8}"

PROTOCOLS = [
    "{kind: d_psgd, lr: 0.05}",
    "{kind: choco_sgd, lr: 0.05, compressor: {kind: rand_k, ratio: 30%}}",
    "{kind: gradient_tracking, lr: 0.02}",
    "{kind: sgp, lr: 0.02}",
]

STAR, COMPLETE = "topology={kind: star}", "topology={kind: complete}"
TOP_K = "compressor: {kind: top_k, ratio: 30%}"

SHARED = [
    (f"{{kind: ec, lr: 0.05, {TOP_K}}}", STAR),
    (f"{{kind: d_ec, lr: 0.05, {TOP_K}}}", STAR),
    (f"{{kind: econtrol, lr: 0.05, eta: 0.3, {TOP_K}}}", STAR),
    (f"{{kind: ef21, lr: 0.05, participation: 70%, {TOP_K}}}", STAR),
    # of a problem that knows its smoothness
    (f"{{kind: ef21_w, lr: 0.05, {TOP_K}}}", STAR),
    ("{kind: one_bit_adam, lr: 0.01, warm_up: 7}", COMPLETE),
    ("{kind: one_bit_adam, lr: 0.01, warm_up: 12}", COMPLETE),
]


def run(path: Path, *overrides: str) -> dict[str, Any]:
    experiment = loads(FILE, overrides=overrides)
    return run_experiment(experiment, FILE, path, Watcher(), path.parent, "kept-1").result


def interrupted(path: Path, rounds: int, *overrides: str) -> None:
    """A run that was killed: no result, a line that was cut off, longer than its checkpoints."""
    run(path, f"stop.rounds={rounds}", *overrides)
    resolved = path / "resolved.yaml"
    resolved.write_text(resolved.read_text().replace(f"  rounds: {rounds}", "  rounds: 24"))
    for name in ("result.json", "fidelity.json", "links.jsonl", "nodes.jsonl"):
        (path / name).unlink()
    with (path / "series.jsonl").open("a") as series:
        series.write('{"node": 0, "rou')


@pytest.mark.parametrize(
    ("protocol", "topology"), [*((each, "topology={kind: ring}") for each in PROTOCOLS), *SHARED]
)
def test_the_weights_are_those_of_a_run_that_was_not_interrupted(
    tmp_path: Path, protocol: str, topology: str
) -> None:
    problem = "problem={kind: quadratic, dim: 8}" if "ef21_w" in protocol else DIGITS
    overrides = [f"protocol={protocol}", topology, problem]
    whole = run(tmp_path / "whole", *overrides)
    path = tmp_path / "broken"
    interrupted(path, 13, *overrides)
    got = resume(path, Watcher()).result
    assert got["run"] == "completed"
    assert got["weights_sha256"] == whole["weights_sha256"]
    for key in ("rounds", "bytes", "messages", "loss"):
        assert got[key] == whole[key], key
    (event,) = (e for e in read_lines(path, "events") if e["event"] == "resumed")
    assert set(event["rounds"].values()) == {10}
    assert [point.round for point in curve(path)] == [
        point.round for point in curve(tmp_path / "whole")
    ]


def test_the_same_messages_are_lost(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", "network.loss=10%")
    interrupted(tmp_path / "broken", 13, "network.loss=10%")
    got = resume(tmp_path / "broken", Watcher()).result
    assert got["messages"] == whole["messages"]
    assert got["lost_messages"] == whole["lost_messages"] > 5


def test_it_can_be_interrupted_again(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")
    path = tmp_path / "broken"
    interrupted(path, 7)
    resolved = path / "resolved.yaml"
    text = resolved.read_text()
    resolved.write_text(text.replace("  rounds: 24", "  rounds: 17"))
    assert resume(path, Watcher()).result["rounds"] == 17
    (path / "result.json").unlink()
    resolved.write_text(text)
    got = resume(path, Watcher()).result
    assert got["weights_sha256"] == whole["weights_sha256"]
    assert len(list(read_lines(path, "links"))) == 2 * 8
    assert [point.round for point in curve(path)] == [*range(0, 24, 2), 24]


def test_a_broken_checkpoint_costs_rounds_but_no_bit(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")
    path = tmp_path / "broken"
    interrupted(path, 16)
    (last,) = (path / "checkpoints" / "node-0002").glob("round-00000015-*")
    last.write_bytes(last.read_bytes()[:-1])
    got = resume(path, Watcher()).result
    assert got["weights_sha256"] == whole["weights_sha256"]


def test_what_cannot_be_resumed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run"
    run(path)
    with pytest.raises(UserError, match="has completed"):
        resume(path, Watcher())
    (path / "result.json").unlink()
    shutil.rmtree(path / "checkpoints" / "node-0003")
    with pytest.raises(UserError, match="nodes 3 have no checkpoint"):
        resume(path, Watcher())
    for node in range(4):
        shutil.rmtree(path / "checkpoints" / f"node-{node:04d}", ignore_errors=True)
    run(tmp_path / "none", "checkpoint.every=null")
    (tmp_path / "none" / "result.json").unlink()
    with pytest.raises(UserError, match="written no checkpoints"):
        resume(tmp_path / "none", Watcher())
    with pytest.raises(UserError, match="holds no run"):
        resume(tmp_path, Watcher())


def test_checkpoints_by_time_are_for_those_who_do_not_go_in_step(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"checkpoint\.every.*one round only"):
        run(tmp_path / "a", "checkpoint.every=1s")
    asynchronous = [
        "protocol={kind: ad_psgd, lr: 0.05}",
        "checkpoint.every=20ms",
    ]
    run(tmp_path / "b", *asynchronous)
    result = json.loads((tmp_path / "b" / "result.json").read_text())
    assert result["run"] == "completed"
    assert len(list((tmp_path / "b" / "checkpoints").glob("node-*/round-*"))) >= 4
