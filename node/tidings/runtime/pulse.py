"""A node's heartbeats to its neighbours, and its ear for theirs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tidings.runtime.detector import Detector
from tidings.runtime.gate import Gate
from tidings.runtime.plan import NodePlan
from tidings.runtime.world import World

#: below the clock's grain time would not go on
_LEAST_S = 1e-6


class Pulse:
    """Says that the node is there where it says nothing else, and suspects who does not.

    ``beat(target)`` sends one heartbeat, ``suspect(peer, silent_s)`` is told of each silent
    neighbour, once until it is heard again. All times are emulated; the node's own clock, which may
    be wrong, is not asked.
    """

    def __init__(
        self,
        plan: NodePlan,
        world: World,
        gate: Gate,
        beat: Callable[[int], Awaitable[None]],
        suspect: Callable[[int, float], None],
    ) -> None:
        self._plan, self._world, self._gate = plan, world, gate
        self._beat, self._suspect = beat, suspect
        self._tasks: list[asyncio.Task[None]] = []
        self._detector: Detector | None = None
        #: those whose silence was told of
        self.silent: set[int] = set()

    def begin(self) -> None:
        """Beat and listen from now on, if that is asked for."""
        asked = self._plan.heartbeat
        if asked is None:
            return
        limit_s = asked.suspect_after_s
        self._detector = Detector(self._plan.in_neighbors, limit_s, self._now_s)
        jobs = [self._send(target, asked.every_s) for target in sorted(self._plan.links)]
        self._tasks = [asyncio.create_task(job) for job in [*jobs, self._listen(limit_s)]]

    def end(self) -> None:
        """Neither beat nor listen any more."""
        for task in self._tasks:
            task.cancel()

    def heard(self, peer: int) -> bool:
        """Something of a peer's has come; whether it was thought silent."""
        if self._detector is None:
            return False
        self._detector.heard(peer, self._now_s)
        was_silent = peer in self.silent
        self.silent.discard(peer)
        return was_silent

    @property
    def _now_s(self) -> float:
        return self._world.clock.now_s

    async def _sleep(self, duration_s: float) -> None:
        await asyncio.sleep(duration_s * self._world.time_scale)

    async def _send(self, target: int, every_s: float) -> None:
        link = self._world.transport.links[target]
        while True:
            before = link.messages
            await self._sleep(every_s)
            if link.messages == before and not self._gate.closed:
                await self._beat(target)

    async def _listen(self, limit_s: float) -> None:
        assert self._detector is not None
        while True:
            planned_s = min(self._detector.next_s(self._now_s), self._now_s + limit_s)
            await self._sleep(max(planned_s - self._now_s, _LEAST_S))
            if self._gate.closed or self._now_s > planned_s + limit_s / 2:
                # it is this node that stood still: what has come meanwhile is yet to be read
                self._detector.deaf(self._now_s)
            for peer, silent_s in self._detector.silent(self._now_s).items():
                if peer not in self.silent:
                    self.silent.add(peer)
                    self._suspect(peer, silent_s)
