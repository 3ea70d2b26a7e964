"""Checks on real records: simulated runs, judged at their end and again later."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.runs import SMALL, result
from typer.testing import CliRunner

from tidings_coordinator.cli import app
from tidings_coordinator.control.watch import Watcher
from tidings_coordinator.experiment import loads
from tidings_coordinator.records.result import exit_code
from tidings_coordinator.running import Outcome, run_experiment

pytestmark = pytest.mark.sim

GOSSIP = """
nodes: 6
network: {rate: 1Mbit/s, delay: 50ms}
problem: {kind: quadratic, dim: 40, heterogeneity: 3.0}
protocol: {kind: ad_psgd, lr: 1e-12}
stop: {time: 5s}
evaluate: {every: 1s}
"""


def run(text: str, path: Path) -> Outcome:
    """Simulate an experiment."""
    experiment = loads(text, "expected.yaml", ["launcher=simulator", "monitor.serve=false"])
    return run_experiment(experiment, text, path, Watcher(), path.parent)


def expecting(*checks: str) -> str:
    return "\nexpect:\n" + "".join(f"  - {check}\n" for check in checks)


@pytest.mark.parametrize(
    ("checks", "verdict", "code"),
    [
        (["{check: accuracy, '>=': 15%}", "accounting", "isolation"], "pass", 0),
        (["accounting", "{check: accuracy, '>=': 99%}"], "fail", 3),
        (["{check: accuracy, at: 1h, '>=': 1%}"], "unknown", 3),
        (["{check: loss, at: 1h, '<': 1}", "{check: loss, '<': 0}"], "fail", 3),
        (["{check: final_state, is: dead}", "isolation"], "fail", 3),
    ],
)
def test_the_verdict_and_the_exit_code(
    tmp_path: Path, checks: list[str], verdict: str, code: int
) -> None:
    outcome = run(SMALL + expecting(*checks), tmp_path / "out")
    found = result(tmp_path / "out")
    assert (found["run"], found["checks"], outcome.exit_code) == ("completed", verdict, code)
    assert len(found["expect"]) == len(checks)
    for judged in found["expect"]:
        assert list(judged) == ["check", "verdict", "measured", "asked", "text"]
    # nothing but the records is needed to say the same again
    again = CliRunner().invoke(app, ["judge", str(tmp_path / "out"), "--json"])
    assert (json.loads(again.stdout), again.exit_code) == (found["expect"], code)


def test_an_old_run_is_judged_by_another_file(tmp_path: Path) -> None:
    run(SMALL, tmp_path / "out")
    runner = CliRunner()
    nothing = runner.invoke(app, ["judge", str(tmp_path / "out")])
    assert (nothing.exit_code, "expects nothing" in nothing.stderr) == (2, True)
    file = tmp_path / "checks.yaml"
    file.write_text("expect:\n- {check: accuracy, '>=': 15%}\n- {check: loss, '<': 0}\n")
    found = runner.invoke(app, ["judge", str(tmp_path / "out"), "--expect", str(file)])
    assert found.exit_code == 3
    first, second = found.stdout.splitlines()
    assert first.startswith("   pass  accuracy: accuracy ")
    assert second.startswith("   FAIL  loss: loss ")
    file.write_text("expect:\n- accounting\n- {check: final_state, nodes: [4], is: dead}\n")
    wrong = runner.invoke(app, ["judge", str(tmp_path / "out"), "--expect", str(file)])
    said = f"{file}:3: expect.1.nodes.0: there is no node 4; nodes are 0 to 3"
    assert (wrong.exit_code, said in wrong.stderr) == (2, True)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, 0),
        ({"run": "aborted"}, 130),
        ({"run": "failed"}, 1),
        ({"fidelity": {"verdict": "fail"}}, 1),
        ({"fidelity": {"verdict": "unknown"}}, 0),
        ({"faults": "partial"}, 4),
        ({"faults": "none", "expect": [{"verdict": "fail"}]}, 4),
        ({"expect": [{"verdict": "pass"}, {"verdict": "unknown"}]}, 3),
        ({"run": "failed", "faults": "none", "expect": [{"verdict": "fail"}]}, 1),
    ],
)
def test_what_a_command_ends_with(changes: dict[str, Any], code: int) -> None:
    fine = {"run": "completed", "faults": "all", "fidelity": {"verdict": "pass"}, "expect": []}
    assert exit_code(fine | changes) == code


def test_gossip_conserves_the_sum_of_the_models(tmp_path: Path) -> None:
    checks = expecting("{check: conservation, tolerance: 0.01%}", "isolation")
    assert run(GOSSIP + checks, tmp_path / "gossip").exit_code == 0
    # learning does not
    learning = GOSSIP.replace("1e-12", "0.05") + checks
    found = run(learning, tmp_path / "learning").result
    assert [judged["verdict"] for judged in found["expect"]] == ["fail", "pass"]


def test_losses_are_accounted_for_to_the_byte(tmp_path: Path) -> None:
    lossy = SMALL.replace("delay: 2ms", "delay: 2ms, loss: 20%") + "wait: {timeout: 50ms}\n"
    found = run(lossy + expecting("accounting"), tmp_path / "out").result["expect"][0]
    assert found["verdict"] == "pass", found["text"]
    assert found["measured"]["lost messages"] > 5
