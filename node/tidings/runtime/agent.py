"""A node's own faults: begun at its own time or round, or on command, and healed again.

What a node can do to itself it does itself, at its own moment: a fault of a round begins and ends
with that round on every transport, and it needs no coordinator to end.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tidings.faults.base import Fault, Heal, OutsideFault
from tidings.runtime.plan import ArmedFault
from tidings.runtime.site import NodeSite
from tidings.runtime.world import World
from tidings.v1 import records_pb2 as records

Key = tuple[str, int]


@dataclass
class _Active:
    """A fault that is there now, on one target."""

    armed: ArmedFault
    target: str
    heal: Heal
    began_round: int
    timer: asyncio.TimerHandle | None = None
    #: whether what becomes of it is this node's to tell
    recorded: bool = True


@dataclass
class FaultAgent:
    """The faults of one node. ``site(event, timed)`` is the node as an event finds it."""

    node: int
    world: World
    site: Callable[[str, bool], NodeSite]
    #: until their rounds come
    _waiting: list[tuple[ArmedFault, Fault]] = field(default_factory=list)
    _timers: list[asyncio.TimerHandle] = field(default_factory=list)
    _active: dict[Key, list[_Active]] = field(default_factory=dict)
    _round: int = 0
    _returning: bool = False
    _dead: bool = False

    def arm(self, faults: Sequence[ArmedFault], returning: bool = False) -> None:
        """Keep in mind what is to begin at a time or in a round.

        ``returning``: this node has been here before. What holds for it now begins again, with what
        is left of its time; what is over, or was done to it once, is not repeated.
        """
        self._returning = returning
        if self._dead:
            # killed before it had begun
            return
        for armed in faults:
            fault = Fault.parse(armed.fault)
            if armed.at_s is None:
                self._waiting.append((armed, fault))
                continue
            late_s = self._now_s - armed.at_s
            over = armed.for_s is not None and late_s >= armed.for_s
            if over or (returning and late_s > 0 and _once(fault)):
                continue
            if late_s >= 0:
                # before the node has done anything
                self._begin(armed, fault)
            else:
                self._timers.append(self._later(-late_s, self._begin, armed, fault))

    def entered(self, round_: int) -> None:
        """The node begins a round: first what ends with it, then what begins with it."""
        first, self._round = self._returning, round_
        self._returning = False
        for key, active in list(self._active.items()):
            armed = active[0].armed
            if armed.for_rounds is not None:
                start = active[0].began_round if armed.at_round is None else armed.at_round
                if round_ >= start + armed.for_rounds:
                    self.heal(*key)
        due = [entry for entry in self._waiting if (entry[0].at_round or 0) <= round_]
        for armed, fault in due:
            self._waiting.remove((armed, fault))
            end = math.inf if armed.for_rounds is None else (armed.at_round or 0) + armed.for_rounds
            if round_ < end and not (first and _once(fault)):
                self._begin(armed, fault)

    def begin(self, armed: ArmedFault) -> None:
        """Begin a fault now; what cannot be done is recorded as failed."""
        self._begin(armed, Fault.parse(armed.fault))

    def _begin(self, armed: ArmedFault, fault: Fault) -> None:
        key = (armed.event, armed.occurrence)
        if isinstance(fault, OutsideFault):
            # the rest is up to who brings it about
            heal = self.site(_name(key), False).stand_still()
            self._active[key] = [_Active(armed, str(self.node), heal, self._round, recorded=False)]
            self.world.arrived(armed, self._round)
            return
        for target, targets in self._split(fault, armed):
            site = self.site(_name(key), armed.at_round is None)
            try:
                heal = fault.begin(site, targets)
            except (NotImplementedError, OSError, ValueError) as error:
                self._record(armed, target, "failed", {"reason": str(error)})
                continue
            self._record(armed, target, "active", {})
            if not fault.lasting:
                continue
            self._active.setdefault(key, []).append(_Active(armed, target, heal, self._round))
        if key in self._active and armed.for_s is not None:
            late_s = 0.0 if armed.at_s is None else max(0.0, self._now_s - armed.at_s)
            self._active[key][0].timer = self._later(armed.for_s - late_s, self.heal, *key)

    def heal(self, event: str, occurrence: int, why: str | None = None) -> None:
        """End a fault, if it is there."""
        for active in self._active.pop((event, occurrence), ()):
            if active.timer is not None:
                active.timer.cancel()
            try:
                detail = dict(active.heal()) | ({} if why is None else {"why": why})
            except OSError as error:
                self._record(active.armed, active.target, "failed", {"reason": str(error)})
                continue
            if active.recorded:
                self._record(active.armed, active.target, "recovered", detail)

    def heal_all(self, why: str) -> None:
        """End all faults, and begin no more."""
        for timer in self._timers:
            timer.cancel()
        self._waiting.clear()
        for key in list(self._active):
            self.heal(*key, why)

    def stop(self) -> None:
        """The node is dead: what it was doing to itself ends without a word."""
        self._dead = True
        active = (each.timer for found in self._active.values() for each in found)
        for timer in (*self._timers, *active):
            if timer is not None:
                timer.cancel()
        self._waiting.clear()
        self._active.clear()

    @property
    def _now_s(self) -> float:
        return self.world.clock.now_s

    def _later(self, delay_s: float, what: Callable[..., None], *args: Any) -> asyncio.TimerHandle:
        loop = asyncio.get_running_loop()
        return loop.call_later(max(0.0, delay_s) * self.world.time_scale, what, *args)

    def _split(self, fault: Fault, armed: ArmedFault) -> list[tuple[str, tuple[int, ...]]]:
        """The targets as they are recorded, each with what its fault is told."""
        if fault.scope == "link":
            return [(f"{self.node}->{peer}", (peer,)) for peer in armed.targets]
        return [(str(self.node), armed.targets)]

    def _record(
        self, armed: ArmedFault, target: str, state: str, detail: Mapping[str, Any]
    ) -> None:
        self.world.fault(
            records.FaultChange(
                node=self.node,
                event=armed.event,
                occurrence=armed.occurrence,
                fault=armed.fault["kind"],
                target=target,
                state=state,
                time_s=self._now_s,
                round=self._round,
                detail=json.dumps(detail),
            )
        )


def _once(fault: Fault) -> bool:
    """Whether it is done to a node once, and does not hold from then on."""
    return isinstance(fault, OutsideFault) or not fault.lasting


def _name(key: Key) -> str:
    """An event's name, by which its draws differ from those of its other occurrences."""
    event, occurrence = key
    return event if occurrence == 0 else f"{event}#{occurrence}"
