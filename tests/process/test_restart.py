"""Real processes that are killed and come back, and runs whose coordinator is killed."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.runs import (
    SMALL,
    descendants,
    lines,
    node_processes,
    result,
    send,
    started,
    tidings,
    wait_for_event,
    wait_until_gone,
)

from tidings.errors import RunError, UserError
from tidings_coordinator import running
from tidings_coordinator.control.conductor import Conductor
from tidings_coordinator.control.watch import Watcher
from tidings_coordinator.experiment.load import load
from tidings_coordinator.records.directory import RunDirectory

pytestmark = pytest.mark.process

VICTIM = 2

#: without its protocol, problem and topology
RUN = """
name: back
nodes: 4
network: {rate: 400kbit/s, delay: 5ms, probe: false}
compute: {time: 20ms}
wait: {timeout: 20s}
checkpoint: {every: 5}
stop: {rounds: 60}
evaluate: {every: 20}
monitor: {serve: false}
"""

CHOCO = f"""{RUN}
problem: {{kind: digits, hidden: 16}}
protocol: {{kind: own.py:Watched, lr: 0.1, compressor: {{kind: top_k, ratio: 10%}}}}
"""

OWN = """
import hashlib
from dataclasses import dataclass
from tidings.protocols.compressed.choco_sgd import ChocoSGD

@dataclass(frozen=True)
class Watched(ChocoSGD):
    def send(self, state, gradient, node):
        known = {node.id: state.public} | state.replicas
        digests = {str(j): hashlib.sha256(x.numpy()).hexdigest() for j, x in known.items()}
        node.log("copies", round=node.round, of=digests)
        return super().send(state, gradient, node)
"""


class Killer(Conductor):
    """A coordinator that kills the victim in a round, and brings it back."""

    lose_state = False
    victim = VICTIM

    async def _until_over(self) -> None:
        deed = asyncio.create_task(self._kill_and_bring_back())
        try:
            await super()._until_over()
        finally:
            deed.cancel()
            await asyncio.wait([deed])
            if not deed.cancelled():
                deed.result()

    async def _kill_and_bring_back(self) -> None:
        def beat() -> Any:
            return self._server.sessions[self.victim].heartbeat

        while beat() is None or beat().round < 12:
            await asyncio.sleep(0.005)
        with pytest.raises(RunError, match="is alive"):
            self._server.renew(self.victim)
        self.returning.away.add(self.victim)
        await self._group.signal(self.victim, signal.SIGKILL)
        await self.returning.restart(self.victim, self.lose_state)


@pytest.mark.parametrize("lose_state", [False, True])
def test_a_killed_node_comes_back_and_replicas_agree_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lose_state: bool
) -> None:
    file, out = tmp_path / "choco.yaml", tmp_path / "run"
    file.write_text(CHOCO)
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.setattr(running, "Conductor", Killer)
    monkeypatch.setattr(Killer, "lose_state", lose_state)
    outcome = running.run_experiment(load(file), CHOCO, out, Watcher(), tmp_path)
    assert outcome.result["run"] == "completed", outcome.result["reason"]
    events = lines(out, "events")
    names = {event["event"] for event in events if event["node"] == VICTIM}
    assert names >= {"died", "restarting", "returned", "rejoined"}
    (back,) = wait_for_event(out, "rejoined")
    fields = _fields(back)
    assert fields["agrees_with"] == [1, 3]
    assert fields["restored"] is None if lose_state else fields["restored"] >= 10
    copies = {
        (found["round"], int(owner), event["node"]): digest
        for event in events
        if event["event"] == "copies"
        for found in [_fields(event)]
        for owner, digest in found["of"].items()
    }
    checked = [key for key in copies if key[0] >= fields["round"] and key[1] != key[2]]
    assert len([key for key in checked if VICTIM in key[1:]]) >= 4 * (59 - fields["round"])
    assert all(copies[r, owner, holder] == copies[r, owner, owner] for r, owner, holder in checked)
    assert all(row["round"] == 60 for row in lines(out, "series") if row["final"])
    assert outcome.result["accuracy"] > 0.8
    # nobody has waited for it: 60 rounds and one time-out would take longer
    assert outcome.result["time_s"] < 20


FEEDBACK = f"""{RUN}
topology: {{kind: star}}
problem: {{kind: quadratic, dim: 8}}
protocol: {{kind: feedback.py:Watched, lr: 0.05, compressor: {{kind: top_k, ratio: 25%}}}}
"""

SUMS = """
from dataclasses import dataclass
from tidings.protocols.compressed.ef21 import EF21

@dataclass(frozen=True)
class Watched(EF21):
    def compress(self, h, gradient, node):
        node.log("shift", round=node.round, h=h.tolist())
        return super().compress(h, gradient, node)

    def step(self, h, sent, node):
        node.log("total", round=node.round, h=h.tolist())
        return super().step(h, sent, node)
"""


@pytest.mark.parametrize("victim", [0, VICTIM])
def test_the_servers_sum_is_that_of_the_workers_after_a_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, victim: int
) -> None:
    """Server or worker, with nothing of what it had."""
    file, out = tmp_path / "feedback.yaml", tmp_path / "run"
    file.write_text(FEEDBACK)
    (tmp_path / "feedback.py").write_text(SUMS)
    monkeypatch.setattr(running, "Conductor", Killer)
    monkeypatch.setattr(Killer, "lose_state", True)
    monkeypatch.setattr(Killer, "victim", victim)
    outcome = running.run_experiment(load(file), FEEDBACK, out, Watcher(), tmp_path)
    assert outcome.result["run"] == "completed", outcome.result["reason"]
    (back,) = wait_for_event(out, "rejoined")
    assert back["node"] == victim
    fields = _fields(back)
    assert fields["agrees_with"] == ([1, 2, 3] if victim == 0 else [0])
    assert fields["restored"] is None
    shifts: dict[int, dict[int, Any]] = {}
    totals = {}
    for event in lines(out, "events"):
        if event["event"] == "shift":
            found = _fields(event)
            shifts.setdefault(found["round"], {})[event["node"]] = found["h"]
        elif event["event"] == "total":
            found = _fields(event)
            totals[found["round"]] = found["h"]
    for round_ in range(fields["round"], 60):
        assert len(shifts[round_]) == 4
        mean = np.mean(list(shifts[round_].values()), axis=0)
        np.testing.assert_allclose(totals[round_], mean, atol=1e-12)
    assert np.abs(shifts[fields["round"]][1]).max() > 0.1
    # nobody has waited for it
    assert outcome.result["time_s"] < 20


def _fields(event: dict[str, Any]) -> dict[str, Any]:
    found = event["fields"]
    return json.loads(found) if isinstance(found, str) else found


def test_a_run_whose_coordinator_was_killed_is_resumed_to_the_same_weights(
    tmp_path: Path,
) -> None:
    file, out = tmp_path / "small.yaml", tmp_path / "run"
    file.write_text(SMALL + "checkpoint: {every: 5}\ncompute: {time: 100ms}\n")
    more = ["--quiet", "--set", "stop.rounds=40"]
    with started("run", str(file), "--out", str(out), *more) as run:
        wait_for_event(out, "started")
        below = descendants(run.pid)
        assert len(node_processes(out)) == 4
        while any(
            not list((out / "checkpoints" / f"node-{node:04d}").glob("round-00000010-*"))
            for node in range(4)
        ):
            assert run.poll() is None
        with pytest.raises(UserError, match="a run is going on in"):
            RunDirectory.reopen(out)
        send(run.pid, signal.SIGKILL)
        wait_until_gone(below)
    assert not (out / "result.json").exists()
    done = tidings("resume", str(out), "--quiet")
    assert done.returncode == 0, done.stdout + done.stderr
    whole = tidings("simulate", str(file), "--out", str(tmp_path / "simulated"), *more)
    assert whole.returncode == 0, whole.stderr
    got, want = result(out), result(tmp_path / "simulated")
    assert got["weights_sha256"] == want["weights_sha256"]
    assert got["rounds"] == 40
    assert got["bytes"] == want["bytes"]
    assert (out / "report.html").exists()
