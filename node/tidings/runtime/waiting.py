"""Who waits for what: the waits of one node, woken by arrivals, described when all is stuck."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tidings.api.message import Message
from tidings.runtime.timeline import State, Timeline


@dataclass(eq=False)
class _Wait:
    text: str
    since_s: float
    #: whether a timer will end it
    timed: bool
    kind: type[Message] | None = None
    #: round and step; None: any, and from any source
    at: tuple[int, int] | None = None
    pending: set[int] = field(default_factory=set)
    need: int = 1
    #: suspects are not waited for
    live: bool = False
    woken: asyncio.Future[bool] | None = None

    def describe(self) -> str:
        missing = f" from {', '.join(map(str, sorted(self.pending)))}" if self.pending else ""
        return f"{self.text}{missing} since {self.since_s:.3f} s"


class Waiting:
    """The open waits of a node; what it does meanwhile goes into its timeline."""

    def __init__(self, timeline: Timeline | None = None) -> None:
        self._timeline = timeline
        self._waits: list[_Wait] = []
        self._working = 0

    def describe(self) -> list[str]:
        """What the node waits for, one line each."""
        return [wait.describe() for wait in self._waits]

    @property
    def stuck(self) -> bool:
        """Whether the node waits, does nothing beside, and no timer will end any of its waits."""
        idle = bool(self._waits) and self._working == 0
        return idle and not any(wait.timed for wait in self._waits)

    @contextmanager
    def working(self, state: State = "sending") -> Iterator[None]:
        """Something that ends by itself: while it lasts the node is not stuck."""
        self._working += 1
        if self._timeline is not None:
            self._timeline.enter(state)
        try:
            yield
        finally:
            if self._timeline is not None:
                self._timeline.leave(state)
            self._working -= 1

    async def round(
        self,
        kind: type[Message],
        round_: int,
        pending: set[int],
        need: int,
        timeout_s: float | None,
        now_s: float,
        suspected: set[int] | None,
        step: int = 0,
    ) -> None:
        """Until ``need`` of the ``pending`` sources were heard, or the deadline (loop seconds).

        With a set of suspects, those are not waited for, now or later.
        """
        text = f"{kind.__name__} of round {round_}" + (f", step {step}" if step else "")
        wait = _Wait(text, now_s, timeout_s is not None, kind, (round_, step), pending, need)
        if suspected is not None:
            wait.live = True
            self._discount(wait, suspected)
        if wait.need > 0:
            await self._until_woken(wait, timeout_s)

    async def next(self, kind: type[Message], timeout_s: float | None, now_s: float) -> bool:
        """Until a message of a kind arrives, or the deadline (loop seconds); whether one has."""
        wait = _Wait(f"the next {kind.__name__}", now_s, timeout_s is not None, kind)
        return await self._until_woken(wait, timeout_s)

    @contextmanager
    def doing(self, text: str, now_s: float, timed: bool = False) -> Iterator[None]:
        """A wait that something else ends, for the description's sake."""
        wait = _Wait(text, now_s, timed)
        self._waits.append(wait)
        try:
            yield
        finally:
            self._waits.remove(wait)

    def arrived(self, kind: type[Message], round_: int, source: int, step: int = 0) -> None:
        """A message was filed: wake whom it concerns."""
        for wait in self._waits:
            if wait.kind is None or not issubclass(kind, wait.kind):
                continue
            if wait.at is None:
                _wake(wait)
            elif wait.at == (round_, step) and source in wait.pending:
                wait.pending.discard(source)
                wait.need -= 1
                if wait.need <= 0:
                    _wake(wait)

    def suspected(self, suspects: set[int]) -> None:
        """Some peers are suspected dead: waits for live ones stop waiting for them."""
        for wait in self._waits:
            if wait.live:
                self._discount(wait, suspects)
                if wait.need <= 0:
                    _wake(wait)

    def away(self, source: int) -> None:
        """A peer is known to have no part in the rounds that are waited for now."""
        for wait in self._waits:
            if wait.at is not None and source in wait.pending:
                wait.pending.discard(source)
                wait.need = min(wait.need, len(wait.pending))
                if wait.need <= 0:
                    _wake(wait)

    def _discount(self, wait: _Wait, suspects: set[int]) -> None:
        gone = wait.pending & suspects
        wait.pending -= gone
        wait.need -= len(gone)

    async def _until_woken(self, wait: _Wait, timeout_s: float | None) -> bool:
        """Whether it was woken before the deadline."""
        loop = asyncio.get_running_loop()
        wait.woken = loop.create_future()
        timer = loop.call_later(timeout_s, _wake, wait, False) if timeout_s is not None else None
        self._waits.append(wait)
        try:
            return await wait.woken
        finally:
            self._waits.remove(wait)
            if timer is not None:
                timer.cancel()


def _wake(wait: _Wait, arrived: bool = True) -> None:
    if wait.woken is not None and not wait.woken.done():
        wait.woken.set_result(arrived)
