"""The exchanges of a run that is replayed: each step of each in its turn, and no handshake."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from tidings.api.message import Message
from tidings.api.node import Ask, Commit, Offer, Outcome
from tidings.runtime.exchange import Exchanger, Transmit
from tidings.runtime.plan import Turn
from tidings.runtime.turns import Script
from tidings.v1 import data_pb2 as pb

#: (peer, id, starter, phase)
_Key = tuple[int, int, int, int]


class ExchangerAgain(Exchanger):
    """One node's side of all its exchanges, as they were.

    Who asks, offers and commits when is the script's to say; over the links goes only what was
    asked with, offered and committed. ``beside`` carries out turns that are no part of an exchange.
    """

    def __init__(
        self, node: int, transmit: Transmit, script: Script, beside: Callable[[Turn], None]
    ) -> None:
        self._node = node
        self._send = transmit
        self._script = script
        self._beside = beside
        self._offer: Offer | None = None
        self._commit: Commit | None = None
        #: what has come
        self._there: dict[_Key, Message | None] = {}
        self._news = asyncio.Event()
        #: what was offered in exchanges that are not decided yet, by (starter, id)
        self._offered: dict[tuple[int, int], Message] = {}
        self.counters: Counter[str] = Counter()

    def arrived(self, source: int, header: pb.Exchange, message: Message | None) -> None:
        """A frame of an exchange has come."""
        self._there[source, header.id, header.starter, header.phase] = message
        self._news.set()

    async def start(
        self, peer: int, ask: Ask | None, within_s: float | None, call: int | None = None
    ) -> Outcome:
        """Ask where it was asked, and return what it ended with."""
        turn = await self._script.mine(call, "ask", "exchange")
        if turn.what == "ask":
            self._script.take(turn)
            shown = None if ask is None else ask()
            header = pb.Exchange(phase=pb.Exchange.ASK, id=turn.id, starter=self._node)
            await self._send(peer, header, shown)
            turn = await self._script.mine(call, "exchange")
        self._script.take(turn)
        outcome = Outcome(turn.outcome)
        self.counters["committed" if outcome is Outcome.DELIVERED else "refused"] += 1
        return outcome

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[None]:
        """Nothing was in between then, and nothing is now."""
        yield

    def farewell(self) -> None:
        """What became of each exchange is in the script."""

    async def settle(self, within_s: float) -> None:
        """All is decided when the script is at its end."""

    async def serve(self) -> None:
        """Carry out what came from outside, in its turn, until cancelled."""
        steps = {"offer": self._offers, "decide": self._decides, "commit": self._commits}
        others = ("suspected", "trusted", "over")
        while True:
            turn = await self._script.mine(None, *steps, *others)
            if turn.what in others:
                self._script.take(turn)
                self._beside(turn)
            else:
                await steps[turn.what](turn)

    async def _offers(self, turn: Turn) -> None:
        seen = await self._what_came(turn, turn.peer, pb.Exchange.ASK)
        value = None if self._offer is None else self._offer(turn.peer, seen)
        if value is not None:
            self._offered[turn.peer, turn.id] = value
            header = pb.Exchange(phase=pb.Exchange.OFFER, id=turn.id, starter=turn.peer)
            await self._send(turn.peer, header, value)

    async def _decides(self, turn: Turn) -> None:
        theirs = await self._what_came(turn, self._node, pb.Exchange.OFFER)
        value = None if self._offer is None else self._offer(turn.peer, theirs)
        if value is not None and self._commit is not None:
            self._commit(turn.peer, value, theirs)
            header = pb.Exchange(phase=pb.Exchange.COMMIT, id=turn.id, starter=self._node)
            await self._send(turn.peer, header, value)

    async def _commits(self, turn: Turn) -> None:
        theirs = await self._what_came(turn, turn.peer, pb.Exchange.COMMIT)
        if self._commit is not None:
            self._commit(turn.peer, self._offered.pop((turn.peer, turn.id)), theirs)
            self.counters["committed"] += 1

    async def _what_came(self, turn: Turn, starter: int, phase: int) -> Message | None:
        """Take the turn as soon as what it was about is there."""
        key = (turn.peer, turn.id, starter, phase)
        while key not in self._there:
            self._news.clear()
            await self._news.wait()
        self._script.take(turn)
        # an ask that came twice may have been answered twice
        return self._there[key] if phase == pb.Exchange.ASK else self._there.pop(key)
