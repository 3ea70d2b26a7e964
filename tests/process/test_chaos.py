"""Sixteen real nodes, and a schedule that breaks most of what can be broken at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.runs import descendants, finish, lines, result, wait_until_gone
from support.runs import started as running

pytestmark = pytest.mark.process

EXPERIMENT = """
name: chaos
seed: 11
nodes: 16
topology: {kind: random_regular, degree: 4}
network: {rate: 50Mbit/s, delay: 2ms, tolerance: {delay: 100ms, rate: 80%}}
problem: {kind: digits, hidden: 16}
protocol: {kind: d_psgd, lr: 0.1}
compute: {time: 50ms}
wait: {for: live, timeout: 500ms}
checkpoint: {every: 10}
faults:
  - {id: dead, fault: node.crash, on: 3, at: 3s}
  - {id: back, fault: node.crash, on: 7, at: {round: 20}, with: {restart_after: 1s}}
  - {id: split, fault: net.partition, with: {shape: halves}, at: 5s, for: 2s}
  - {id: loss, fault: link.loss, on: random(20%), with: {p: 0.3}, from: 1s, to: 15s}
  - {id: ice, fault: node.pause, on: [1, 2], at: 9s, for: 1s}
  - {id: slow, fault: node.slow, on: 5, with: {factor: 3}, from: 2s, to: 12s}
  - {id: deaf, fault: coord.isolate, at: 11s, for: 2s}
  - {id: end, fault: mark, at: 16s}
expect:
  - {check: final_state, nodes: 3, is: dead}
  - {check: final_state, nodes: [0, 1, 2, "4..15"], is: finished}
  - {check: accuracy, at: end, ">=": 60%}
  - accounting
stop: {time: 20s}
evaluate: {every: 20}
"""


def test_chaos_leaves_nothing_unaccounted_for_and_nothing_behind(tmp_path: Path) -> None:
    file, out = tmp_path / "chaos.yaml", tmp_path / "run"
    file.write_text(EXPERIMENT)
    with running("run", str(file), "--out", str(out)) as process:
        below = descendants(process.pid)
        code, stdout, stderr = finish(process)
    found = result(out)
    assert code == 0, stdout + stderr + str(found["faults_applied"]) + str(found["expect"])
    assert (found["run"], found["faults"]) == ("completed", "all")
    assert [check["verdict"] for check in found["expect"]] == ["pass"] * 4
    assert {event["event"] for event in lines(out, "events")} >= {"died", "restarting", "returned"}
    wait_until_gone(below)
