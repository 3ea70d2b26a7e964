"""The director at work on real nodes."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from tidings.errors import RunError
from tidings.runtime.plan import ArmedFault
from tidings.v1 import control_pb2 as pb
from tidings.v1 import records_pb2 as records
from tidings_coordinator.control.returning import Returning
from tidings_coordinator.control.server import ControlServer
from tidings_coordinator.faults.director import Director
from tidings_coordinator.faults.hands import Done, Hands, View
from tidings_coordinator.faults.successor import Successor
from tidings_coordinator.launchers.base import NodeGroup
from tidings_coordinator.planning import RunPlan
from tidings_coordinator.records.directory import RunDirectory, read_lines
from tidings_coordinator.records.standing import standing

#: wall seconds in which nodes find a coordinator again that was isolated
_BACK_S = 30.0


class RealHands(Hands):
    """Acts on node processes: by their launcher, and by commands to the nodes themselves."""

    def __init__(
        self,
        run: RunPlan,
        group: NodeGroup,
        server: ControlServer,
        returning: Returning,
        now_s: Callable[[], float],
    ) -> None:
        self._run = run
        self._now_s = now_s
        self._group = group
        self._server = server
        self._returning = returning
        #: what went wrong on the way
        self.failure: BaseException | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._paused: set[int] = set()

    def begin(self, node: int, armed: ArmedFault) -> None:
        """As Hands.begin."""
        self._order(node, pb.FaultOrder(begin=armed.model_dump_json()))

    def heal(self, node: int, event: str, occurrence: int) -> None:
        """As Hands.heal."""
        self._order(node, pb.FaultOrder(heal=pb.HealOrder(event=event, occurrence=occurrence)))

    def kill(self, node: int, comes_back: bool) -> None:
        """As Hands.kill; it is seen to be dead, or the run fails."""
        if comes_back:
            self._returning.expect(node)
        self._spawn(self._kill(node, comes_back))

    async def _kill(self, node: int, comes_back: bool) -> None:
        await self._group.kill(node, comes_back)
        await self._returning.until_dead(node)

    def pause(self, node: int, event: str) -> None:
        """As Hands.pause."""
        self._paused.add(node)
        self._spawn(self._group.signal(node, signal.SIGSTOP))

    def resume(self, node: int, event: str) -> None:
        """As Hands.resume."""
        self._paused.discard(node)
        self.thaw(node)
        # it may have slept through an isolation
        self._spawn(self._until_back())

    def thaw(self, node: int) -> None:
        """Let a process go on, if it stands still."""
        self._spawn(self._group.signal(node, signal.SIGCONT))

    def restart(self, node: int, lose_state: bool) -> None:
        """As Hands.restart."""
        self._returning.away.add(node)
        self._spawn(self._returning.restart(node, lose_state))

    def crash(self, after_s: float) -> None:
        """As Hands.crash; see :mod:`tidings_coordinator.attending` for who comes after it."""
        os.kill(os.getpid(), signal.SIGKILL)

    def tell(self, node: int, present: bool) -> None:
        """As Hands.tell."""
        news = pb.Membership(node=node, present=present)
        for peer in self._run.nodes[node].neighbors:
            self._server.sessions[peer].send(pb.CoordinatorMessage(membership=news))

    def hang_up(self, done: Done) -> None:
        """As Hands.hang_up: after all that is under way has been brought to its end."""
        self._spawn(self._hang_up(done))

    async def _hang_up(self, done: Done) -> None:
        if under_way := self._tasks - {asyncio.current_task()}:
            await asyncio.wait(under_way)
        done(self._now_s(), {"nodes": await self._server.hang_up()})

    def listen(self, done: Done) -> None:
        """As Hands.listen."""
        self._spawn(self._listen(done))

    async def _listen(self, done: Done) -> None:
        passed_bytes = await self._server.listen_again()
        await self._until_back()
        back = sum(session.here for session in self._server.sessions.values())
        done(self._now_s(), {"nodes": back, "control_bytes": passed_bytes})

    async def _until_back(self) -> None:
        await self._server.until_back(_BACK_S, self._paused)

    async def done(self) -> None:
        """Until everything has been done; what has failed already keeps nobody waiting."""
        if self._tasks:
            within_s = _BACK_S if self.failure is None else 0.0
            _, late = await asyncio.wait(self._tasks, timeout=within_s)
            for task in late:
                task.cancel()

    def _order(self, node: int, order: pb.FaultOrder) -> None:
        self._server.sessions[node].send(pb.CoordinatorMessage(fault=order))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            self.failure = self.failure or task.exception()


class ConductedFaults:
    """Looks at a run of real nodes on the director's behalf. ``now_s``: emulated time."""

    def __init__(
        self,
        run: RunPlan,
        group: NodeGroup,
        server: ControlServer,
        directory: RunDirectory,
        now_s: Callable[[], float],
        returning: Returning,
    ) -> None:
        self._server = server
        self._now_s = now_s
        self._returning = returning
        self._hands = RealHands(run, group, server, returning, now_s)
        self._returning = returning
        self._director = (Successor if server.adopting else Director)(
            run.firings, run.honest, self._hands, lambda line: directory.append("faults", line)
        )

    @property
    def dead(self) -> set[int]:
        """The nodes that were killed on purpose, as long as they are dead."""
        return self._director.dead

    @property
    def isolated(self) -> bool:
        """Whether the coordinator is cut off from its nodes, because that was asked for."""
        return self._director.isolated

    def row(self, row: records.Evaluation) -> None:
        """A node was evaluated."""
        self._director.row(row, self._view())

    def look(self) -> float | None:
        """Do what is due; in how many emulated seconds to look again, where that is known.

        RunError where a node that was to come back did not.
        """
        if self._hands.failure is not None:
            raise RunError(f"a fault could not be brought about: {self._hands.failure}")
        return self._look()

    def _look(self) -> float | None:
        view = self._view()
        self._hear(view)
        self._director.tick(view)
        next_s = self._director.next_s()
        return None if next_s is None else max(0.0, next_s - view.time_s)

    # -- in the place of a coordinator that was killed -----------------------------------------

    def recall(self, path: Path) -> set[int]:
        """Know what the other one has done; the nodes that cannot come back by themselves."""
        assert isinstance(self._director, Successor)
        self._director.recall(standing(path, "faults"), standing(path, "series"))
        absent = self._director.dead | self._returning.recall(read_lines(path, "events")).keys()
        for node in absent:
            # who dies has no stream to lose here
            self._server.sessions[node].gone = True
        for node in self._director.thawed:
            self._hands.thaw(node)
        return absent | self._director.paused

    def settle(self) -> None:
        """Go on where the other one was stopped; all nodes have said again what they have said."""
        assert isinstance(self._director, Successor)
        view = self._view()
        self._hear(view)
        for node, lose_state in self._returning.broken_off.items():
            # it may not have come to its end by itself
            self._hands.kill(node, True)
            self._hands.restart(node, lose_state)
        self._director.settle(view)

    async def end(self, why: str) -> None:
        """The run is over: whatever stands still goes on."""
        self._look()
        if self._director.isolated:
            self._director.mend(why)
            await self._hands.done()
            self._look()
        self._director.end(self._view(), why)
        await self._hands.done()
        for node in sorted(self._returning.away):
            self._director.missing(node, self._view(), why)

    def _hear(self, view: View) -> None:
        while not self._server.faults.empty():
            self._director.change(self._server.faults.get_nowait(), view)
        while not self._server.arrivals.empty():
            node, here = self._server.arrivals.get_nowait()
            self._director.arrived(node, here.event, here.occurrence, here.round, view)

    def _view(self) -> View:
        beats = {s.node: s.heartbeat for s in self._server.sessions.values()}
        rounds = {node: beat.round for node, beat in beats.items() if beat is not None}
        sent = sum(beat.sent_bytes for beat in beats.values() if beat is not None)
        return View(self._now_s(), rounds, sent)
