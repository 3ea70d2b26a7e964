"""Coordinators that nobody hears for a while, and those that die."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.runs import (
    DEADLINE_S,
    descendants,
    finish,
    free_ports,
    lines,
    node,
    result,
    started,
    tidings,
    wait_for_event,
    wait_until_gone,
)

pytestmark = pytest.mark.process

BASE = """
name: alone
seed: 3
nodes: 4
network: {rate: 50Mbit/s, delay: 2ms, tolerance: {delay: 100ms, rate: 80%}}
problem: {kind: digits, hidden: 16}
protocol: {kind: d_psgd, lr: 0.1}
compute: {time: 50ms}
wait: {timeout: 60s}
stop: {rounds: 80}
evaluate: {every: 4}
faults:
"""


def as_simulated(file: Path, found: dict[str, Any], out: Path) -> None:
    """The same weights, bytes and rows as in virtual time, and each row once."""
    simulated = out.with_name("simulated")
    done = tidings("simulate", str(file), "--out", str(simulated), "--quiet")
    assert done.returncode == 0, done.stderr
    assert found["weights_sha256"] == result(simulated)["weights_sha256"]
    assert found["bytes"] == result(simulated)["bytes"]
    rows, expected = (
        Counter((row["node"], row["round"], row["final"]) for row in lines(path, "series"))
        for path in (out, simulated)
    )
    assert rows == expected
    assert set(rows.values()) == {1}


@pytest.mark.parametrize(("tls", "frozen"), [("never", False), ("always", True)])
def test_nodes_go_on_while_their_coordinator_cannot_be_reached(
    tmp_path: Path, tls: str, frozen: bool
) -> None:
    file, out = tmp_path / "alone.yaml", tmp_path / "run"
    file.write_text(
        BASE
        + "  - {id: away, fault: coord.isolate, at: 1s, for: 1500ms}\n"
        + "  - {id: own, fault: node.slow, on: 1, with: {factor: 1.5}, from: 1200ms, to: 2s}\n"
        + ("  - {id: ice, fault: node.pause, on: 2, at: 900ms, for: 400ms}\n" * frozen)
        + "  - {id: due, fault: mark, at: 1500ms}\n"
        + f"security: {{tls: {tls}}}\n"
    )
    done = tidings("run", str(file), "--out", str(out), "--quiet")
    assert done.returncode == 0, done.stdout + done.stderr
    found = result(out)
    by = {(line["event"], line["state"]): line for line in lines(out, "faults")}
    gone, back = by["away", "active"], by["away", "recovered"]
    assert gone["detail"] == {"nodes": 4}
    # not a byte has passed
    assert back["detail"] == {"nodes": 4 - frozen, "control_bytes": 0}
    assert back["time_s"] - gone["time_s"] >= 1.5
    # a node's own fault needed nobody, and was heard of later
    assert abs(by["own", "recovered"]["time_s"] - 2.0) < 0.3
    assert list(by).index(("own", "active")) > list(by).index(("away", "recovered"))
    # what fell due in between is late
    assert by["due", "active"]["time_s"] >= back["time_s"]
    (due,) = [each for each in found["faults_applied"] if each["event"] == "due"]
    assert due["late_s"] >= 0.9
    while_away = {
        row["node"]
        for row in lines(out, "series")
        if gone["time_s"] < row["time_s"] < back["time_s"] - 0.5
    }
    if frozen:
        # who stands still cannot come back before it is let go, which happens late
        assert by["ice", "recovered"]["time_s"] >= back["time_s"]
    else:
        assert while_away == {0, 1, 2, 3}
    as_simulated(file, found, out)


CRASH = "  - {id: gone, fault: coord.crash, at: 1s, with: {restart_after: 1s}}\n"


def succeeded(out: Path) -> None:
    """It was killed, and somebody took over, a little later than asked."""
    by = {(line["event"], line["state"]): line for line in lines(out, "faults")}
    gone, back = by["gone", "active"], by["gone", "recovered"]
    assert gone["detail"] == {"how": "SIGKILL", "restart_after_s": 1.0}
    assert back["time_s"] - gone["time_s"] >= 1.0
    assert back["detail"]["away_s"] == pytest.approx(back["time_s"] - gone["time_s"])
    assert by["due", "active"]["time_s"] >= back["time_s"]
    assert [e["event"] for e in lines(out, "events")].count("adopted") == 1


def test_a_coordinator_is_killed_and_another_one_takes_over(tmp_path: Path) -> None:
    file, out = tmp_path / "alone.yaml", tmp_path / "run"
    file.write_text(BASE + CRASH + "  - {id: due, fault: mark, at: 1500ms}\n")
    with started("run", str(file), "--out", str(out), "--quiet") as run:
        wait_for_event(out, "started")
        first = descendants(run.pid)
        wait_for_event(out, "adopted")
        second = descendants(run.pid)
        code, stdout, stderr = finish(run)
    assert code == 0, stdout + stderr
    # the coordinator's process was another one
    assert first - second
    assert second - first
    succeeded(out)
    wait_until_gone(first | second)
    assert not (out / "nodes.sock").exists()
    as_simulated(file, result(out), out)


def test_nodes_that_others_have_started_are_taken_over(tmp_path: Path) -> None:
    file, out = tmp_path / "alone.yaml", tmp_path / "run"
    launcher = f"launcher: {{kind: external, port: {free_ports(1)[0]}}}\n"
    file.write_text(BASE + CRASH + "  - {id: due, fault: mark, at: 1500ms}\n" + launcher)
    with ExitStack() as stack:
        run = stack.enter_context(started("run", str(file), "--out", str(out), "--quiet"))
        place = ["--coordinator", wait_for_event(out, "launching")[0]["coordinator"]]
        nodes = [node(stack, "--node", str(i), *place, log=tmp_path / f"{i}.log") for i in range(4)]
        code, stdout, stderr = finish(run)
        assert code == 0, stdout + stderr
        assert [each.wait(DEADLINE_S) for each in nodes] == [0] * 4
    succeeded(out)
    as_simulated(file, result(out), out)
