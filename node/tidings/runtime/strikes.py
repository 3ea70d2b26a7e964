"""Faults of single messages: they strike between a node and its link, whatever carries that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tidings.faults.base import Copy, Heal, Mail, Striker
from tidings.links.shape import Dice
from tidings.transports.base import Transport
from tidings.wire.frame import Frame


class Cut:
    """Nothing gets through; see ``link.cut``."""

    def __init__(self, reject: bool) -> None:
        self.reject = reject

    def strike(self, mail: Mail, dice: Dice, number: int) -> Sequence[Copy] | None:
        """Lost."""
        return ()


@dataclass
class _Strike:
    """One event's hold on one link, and what came of it."""

    event: str
    striker: Striker
    dice: Dice
    messages: int = 0
    affected: int = 0
    affected_bytes: int = 0

    def on(self, mail: Mail) -> Sequence[Copy] | None:
        """What becomes of the next message."""
        found = self.striker.strike(mail, self.dice, self.messages)
        self.messages += 1
        if found is not None:
            self.affected += 1
            self.affected_bytes += mail.frame.size_bytes
        return found

    def detail(self) -> dict[str, Any]:
        """For the records."""
        return {"messages": self.messages, "affected": self.affected, "bytes": self.affected_bytes}


class Strikes:
    """All strikes at one node's outgoing links. ``time_scale``: loop seconds an emulated second."""

    def __init__(self, transport: Transport, seed: int, node: int, time_scale: float) -> None:
        self._transport = transport
        self._seed, self._node, self._time_scale = seed, node, time_scale
        #: by link and event, in the order in which the events began
        self._links: dict[int, dict[str, _Strike]] = {}
        #: what is held back: (target, frame, by which event)
        self._held: dict[asyncio.TimerHandle, tuple[int, Frame, str]] = {}
        self._sending: set[asyncio.Task[None]] = set()

    def begin(self, target: int, event: str, fresh: Callable[[], Striker]) -> Heal:
        """Let ``event`` strike at the link to ``target``."""
        strike = _Strike(event, fresh(), Dice(self._seed, self._node, target, event))
        self._links.setdefault(target, {})[event] = strike

        def heal() -> Mapping[str, Any]:
            self._links[target].pop(event, None)
            return strike.detail()

        return heal

    def rejected(self, mail: Mail) -> bool:
        """Whether a message is refused outright; it is counted then."""
        for strike in self._links.get(mail.target, {}).values():
            if isinstance(strike.striker, Cut) and strike.striker.reject:
                strike.on(mail)
                return True
        return False

    async def send(self, mail: Mail) -> None:
        """Hand a message to its link, as far as it gets."""
        strikes = self._links.get(mail.target)
        if not strikes:
            await self._transport.send(mail.target, mail.frame)
            return
        copies = [(Copy(mail.frame), "")]
        # cuts first: what cannot leave is lost by them and by nothing else
        for strike in sorted(strikes.values(), key=lambda s: not isinstance(s.striker, Cut)):
            copies = [
                entry for copy, by in copies for entry in self._struck(strike, mail, copy, by)
            ]
        for copy, event in copies:
            if copy.delay_s > 0:
                self._hold(mail.target, copy, event)
            else:
                await self._transport.send(mail.target, copy.frame, copy.extra)

    async def beat(self, mail: Mail) -> None:
        """Hand a heartbeat to its link, unless that is cut; other strikes are at messages."""
        cut = self._cut(mail.target)
        if cut is not None:
            self._lose(mail.target, mail.frame, cut.event)
            return
        await self._transport.send(mail.target, mail.frame)

    def _cut(self, target: int) -> _Strike | None:
        """What keeps the link cut now, if anything does."""
        strikes = self._links.get(target, {}).values()
        return next((strike for strike in strikes if isinstance(strike.striker, Cut)), None)

    def _struck(
        self, strike: _Strike, mail: Mail, copy: Copy, event: str
    ) -> list[tuple[Copy, str]]:
        """What an event leaves of a copy, and which event holds it back, if one does."""
        found = strike.on(Mail(mail.target, mail.kind, mail.round, copy.frame))
        if found is None:
            return [(copy, event)]
        if not found and not copy.extra:
            self._lose(mail.target, copy.frame, strike.event)
        return [
            (
                Copy(each.frame, copy.delay_s + each.delay_s, copy.extra or each.extra),
                strike.event if each.delay_s else event,
            )
            for each in found
        ]

    def _lose(self, target: int, frame: Frame, event: str) -> None:
        counters = self._transport.links[target]
        counters.accept(frame)
        counters.lose(frame, event)

    def _hold(self, target: int, copy: Copy, event: str) -> None:
        loop = asyncio.get_running_loop()

        def release() -> None:
            del self._held[handle]
            cut = self._cut(target)
            if cut is not None:
                # it has not left yet
                cut.on(Mail(target, None, 0, copy.frame))
                if not copy.extra:
                    self._lose(target, copy.frame, cut.event)
                return
            task = asyncio.ensure_future(self._transport.send(target, copy.frame, copy.extra))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

        handle = loop.call_later(copy.delay_s * self._time_scale, release)
        self._held[handle] = (target, copy.frame, "" if copy.extra else event)

    def end(self) -> None:
        """Nothing more leaves: what is held back still is lost to whom held it."""
        for handle, (target, frame, event) in self._held.items():
            handle.cancel()
            if event:
                self._lose(target, frame, event)
        self._held.clear()
        for task in self._sending:
            task.cancel()
