"""A coordinator is killed, its nodes go on, and another one takes them over."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.runs import (
    DEADLINE_S,
    SMALL,
    descendants,
    free_ports,
    lines,
    node,
    result,
    send,
    started,
    tidings,
    wait_for_event,
    wait_until_gone,
)

from tidings.errors import UserError
from tidings_coordinator.adopting import adopt
from tidings_coordinator.control.watch import Watcher

pytestmark = pytest.mark.process


def rounds_of(out: Path) -> int:
    return max((row["round"] for row in lines(out, "series")), default=0)


@pytest.mark.parametrize("tls", ["never", "always"])
def test_nodes_go_on_and_are_taken_over(tmp_path: Path, tls: str) -> None:
    file, out = tmp_path / "small.yaml", tmp_path / "run"
    port = free_ports(1)[0]
    launcher = f"launcher: {{kind: external, port: {port}, grace: 90s}}\n"
    file.write_text(
        SMALL.replace("{rounds: 12}", "{rounds: 160}")
        + f"{launcher}compute: {{time: 100ms}}\nsecurity: {{tls: {tls}}}\n"
    )
    with ExitStack() as stack:
        run = stack.enter_context(started("run", str(file), "--out", str(out)))
        address = wait_for_event(out, "launching")[0]["coordinator"]
        given = dict(line.split("=", 1) for line in (out / "join.env").read_text().splitlines())
        place = ["--coordinator", address]
        nodes = [
            node(stack, "--node", str(i), *place, log=tmp_path / f"{i}.log", join=given)
            for i in range(4)
        ]
        wait_for_event(out, "started")
        while rounds_of(out) < 8:
            assert run.poll() is None
        send(run.pid, signal.SIGKILL)
        run.wait(DEADLINE_S)
        kept = out / "authority.env"
        assert kept.exists() == (tls == "always")
        if kept.exists():
            assert kept.stat().st_mode & 0o777 == 0o600
            kept.chmod(0o644)
            with pytest.raises(UserError, match="others may read it"):
                adopt(out, Watcher())
            kept.chmod(0o600)
        before = rounds_of(out)
        done = tidings("adopt", str(out), "--quiet", deadline_s=2 * DEADLINE_S)
        assert done.returncode == 0, done.stdout + done.stderr
        assert [each.wait(DEADLINE_S) for each in nodes] == [0] * 4
    assert before < 160
    assert not kept.exists()
    found = result(out)
    assert (found["run"], found["rounds"]) == ("completed", 160)
    # nothing is missing and nothing stands twice
    for i in range(4):
        rows = [row["round"] for row in lines(out, "series") if row["node"] == i]
        assert rows == [*range(0, 161, 4)]
    whole = ["--launcher", "simulator", "--out", str(tmp_path / "whole"), "--quiet"]
    assert tidings("run", str(file), *whole).returncode == 0
    assert found["weights_sha256"] == result(tmp_path / "whole")["weights_sha256"]
    assert found["bytes"] == result(tmp_path / "whole")["bytes"]


STATES = ("active", "recovered")
LOCAL = (
    SMALL.replace("{rounds: 12}", "{time: 12s}")
    + """
compute: {time: 50ms}
wait: {for: live, timeout: 2s}
checkpoint: {every: 5}
faults:
  - {id: ice, fault: node.pause, on: 1, at: 1s, for: 3s}
  - {id: back, fault: node.crash, on: 3, at: 1s, with: {restart_after: 3s}}
  - {id: later, fault: node.slow, on: 0, with: {factor: 2}, at: {bytes: 100kB}, for: {bytes: 100kB}}
"""
)


def test_local_nodes_are_taken_over_with_their_faults(tmp_path: Path) -> None:
    """A frozen node thaws and a dead one comes back by the hands of another coordinator."""
    file, out = tmp_path / "small.yaml", tmp_path / "run"
    file.write_text(LOCAL + "launcher: {kind: local, grace: 90s}\n")
    with started("run", str(file), "--out", str(out), "--quiet") as run:
        while not {"ice", "back"} <= {line["event"] for line in lines(out, "faults")}:
            assert run.poll() is None
        nodes = descendants(run.pid)
        send(run.pid, signal.SIGKILL)
        run.wait(DEADLINE_S)
    said = lines(out, "faults")
    assert ("ice", "recovered") not in {(line["event"], line["state"]) for line in said}
    # in this process, which is quicker than to start one
    outcome = adopt(out, Watcher())
    found = outcome.result
    assert (found["run"], found["faults"]) == ("completed", "all"), found["faults_applied"]
    assert outcome.exit_code == 0
    assert all(found["weights_sha256"])
    # what was written stays, and nothing stands twice
    after = lines(out, "faults")
    assert after[: len(said)] == said
    states = [(line["event"], line["state"]) for line in after]
    assert sorted(states) == sorted((e, s) for e in ("ice", "back", "later") for s in STATES)
    assert [e["event"] for e in lines(out, "events")].count("died") == 1
    wait_until_gone(nodes)


def test_local_nodes_end_by_themselves_where_nobody_comes(tmp_path: Path) -> None:
    file, out = tmp_path / "small.yaml", tmp_path / "run"
    file.write_text(LOCAL + "launcher: {kind: local, grace: 2s}\n")
    with started("run", str(file), "--out", str(out), "--quiet") as run:
        wait_for_event(out, "started")
        nodes = descendants(run.pid)
        send(run.pid, signal.SIGKILL)
        run.wait(DEADLINE_S)
    assert len(nodes) == 5
    wait_until_gone(nodes)
    assert not (out / "nodes.sock").exists()
    outcome = adopt(out, Watcher())
    assert outcome.exit_code == 1
    assert "are not there any more" in outcome.result["reason"]


def test_what_cannot_be_adopted_is_refused(tmp_path: Path) -> None:
    file, out = tmp_path / "small.yaml", tmp_path / "run"
    with pytest.raises(UserError, match="holds no run"):
        adopt(tmp_path, Watcher())
    file.write_text(SMALL)
    assert tidings("simulate", str(file), "--out", str(out), "--quiet").returncode == 0
    with pytest.raises(UserError, match="has ended"):
        adopt(out, Watcher())
    (out / "result.json").unlink()
    with pytest.raises(UserError, match="do not outlive their coordinator"):
        adopt(out, Watcher())
