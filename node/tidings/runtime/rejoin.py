"""How a node that comes back takes its place in a synchronous run again.

It was started again, or was away (``node.leave``), or finds that neighbours which do not wait for
it have gone on without it: then it does not run after them through rounds that are over.

::

    returning node                       each neighbour
    ASK                            -->   I am in round t; I do not wait for you in it, and shall not
                                   <--   HERE t     begin round t+1 before I hear from you
    R = 1 + the largest t
    JOIN R, what it brings         -->
                                   <--   NOTED      (goes on, without the other, up to round R-1)
                                         at the start of R: takes what was brought,
                                   <--   GIVE R     and gives what the other needs
    takes it, begins round R             begins round R

So all of them know of one round from which on both ends agree. Frames may be lost: the returning
node asks again until it has been given what it needs, and is answered the same way again. A
neighbour is held up by one exchange of messages, and at most for the wait time-out.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Set
from dataclasses import dataclass
from typing import Literal

from tidings.api.message import Message
from tidings.runtime.plan import NodePlan
from tidings.runtime.waiting import Waiting
from tidings.v1 import data_pb2 as pb

#: sends (peer, handshake, message) over the link, in order
Transmit = Callable[[int, pb.Rejoin, Message | None], Awaitable[None]]
#: (to a peer) what the protocol shows it
Show = Callable[[int], Message | None]

#: frames that may wait for an answer; an honest neighbour has a few on their way
_WAITING_FRAMES = 256
#: the first question is repeated so much sooner, and how often the interval then doubles
_PROMPT, _DOUBLINGS = 16, 8


@dataclass
class _Returning:
    """A neighbour that is coming back."""

    #: its incarnation, and how often that has come back
    which: tuple[int, int]
    #: until when it is waited for, loop seconds
    until_s: float
    #: the first round in which it takes part again; None: it has not said yet
    back: int | None = None
    brings: Message | None = None
    #: the round of which it was given something, and what
    given: tuple[int, Message | None] | None = None


class Rejoiner:
    """One node's side of all returns, its own and its neighbours'."""

    def __init__(
        self,
        plan: NodePlan,
        transmit: Transmit,
        waiting: Waiting,
        retry_s: float,
        suspected: Set[int],
    ) -> None:
        self._plan = plan
        self._transmit = transmit
        self._waiting = waiting
        self._suspected = suspected
        self._both_ways = set(plan.links) & set(plan.in_neighbors)
        #: so many rounds further a neighbour can be only if it went without this node
        self._period = plan.phase_rounds * len(plan.phases) if len(plan.phases) > 1 else 1
        #: the round that each neighbour was last heard to be in
        self._last: dict[int, int] = {}
        #: whether the protocol goes through rounds with its neighbours at all
        self._used = False
        #: whether this node was away and has to ask where the others are
        self._due = False
        self._number = 0
        self._retry_s = retry_s
        self._wait_s = plan.wait_s * plan.time_scale
        #: the last round that was begun
        self._at = -1
        self._returning: dict[int, _Returning] = {}
        #: the round as of which this node and a neighbour last agreed
        self._agreed: dict[int, int] = {}
        self._queue: deque[tuple[int, int, pb.Rejoin, Message | None]] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        #: whether this node itself is coming back
        self._coming = False
        #: as the returning node: the rounds that the neighbours are in, and what they have given
        self._here: dict[int, int] = {}
        self._noted: set[int] = set()
        self._given: dict[int, tuple[int, Message | None]] = {}

    # -- in every round ------------------------------------------------------------------------

    def away(self, round_: int) -> set[int]:
        """The neighbours that are known to have no part in a round."""
        if self._due:
            return set(self._plan.in_neighbors)
        ahead = {peer for peer in self._both_ways if self._past(peer, round_ + 1)}
        return ahead | {
            source
            for source, them in self._returning.items()
            if them.back is None or them.back > round_
        }

    def left(self) -> bool:
        """This node was away and is back; whether it is to come back by the handshake."""
        self._due = self._used
        return self._due

    def behind(self, round_: int) -> bool:
        """Whether this node, about to begin a round, has to come back first."""
        return self._due or any(self._past(peer, round_) for peer in self._both_ways)

    def _past(self, peer: int, round_: int) -> bool:
        """Whether a neighbour has been through a round without this node."""
        if self._plan.wait_for != "live" or not self._used or self._plan.graphs:
            # where the graph is another one at times, who is ahead may not need this node
            return False
        them = self._returning.get(peer)
        back = -1 if them is None or them.back is None else them.back - 1
        return max(back, self._last.get(peer, -1)) >= round_ + self._period

    def heard(self, source: int, round_: int) -> bool:
        """A frame of a neighbour that is in that round; whether it is past the one we are in."""
        self._last[source] = round_
        return source in self._both_ways and self._past(source, self._at + 1)

    async def begin(self, round_: int, now_s: float) -> list[tuple[int, Message | None]]:
        """A round begins: wait for neighbours that are about to say when they come back.

        Returns those that are back from this round on, each with what it brings.
        """
        self._used = True
        if not self._returning:
            self._at = round_
            return []
        while until_s := [them.until_s for them in self._returning.values() if them.back is None]:
            self._news.clear()
            try:
                async with asyncio.timeout_at(min(until_s)):
                    with self._waiting.doing("a neighbour that comes back", now_s, timed=True):
                        await self._news.wait()
            except TimeoutError:
                # gone again: when it asks the next time it is as if for the first
                for source, them in list(self._returning.items()):
                    if them.back is None and them.until_s <= min(until_s):
                        del self._returning[source]
        self._at = round_
        back = []
        for source, them in sorted(self._returning.items()):
            here = them.back is not None and them.back <= round_ and them.given is None
            if here and self._agreed.get(source, -1) < (them.back or 0):
                back.append((source, them.brings))
                self._agreed[source] = them.back or 0
        return back

    async def give(self, peer: int, message: Message | None) -> None:
        """What a neighbour that is back needs, as of the start of this round."""
        them = self._returning[peer]
        them.given, them.brings = (self._at, message), None
        await self._reply(peer, them)

    # -- answering -----------------------------------------------------------------------------

    def arrived(
        self, source: int, incarnation: int, header: pb.Rejoin, message: Message | None
    ) -> Literal["overflow"] | None:
        """A frame of the handshake has come; why it is refused, if it is."""
        if len(self._queue) >= _WAITING_FRAMES:
            return "overflow"
        self._queue.append((source, incarnation, header, message))
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        return None

    def saw(self, source: int, round_: int) -> None:
        """A message of a round has come: so far its sender is, if it does not say itself."""
        if self._coming and source not in self._plan.links:
            self._here[source] = max(round_, self._here.get(source, 0))
            self._news.set()

    def stop(self) -> None:
        """Answer nobody any more."""
        self._queue.clear()
        if self._worker is not None:
            self._worker.cancel()

    def check(self) -> None:
        """Raise what ended the answering, if anything did."""
        if self._worker is not None and self._worker.done() and not self._worker.cancelled():
            self._worker.result()

    async def _work(self) -> None:
        while self._queue:
            await self._answer(*self._queue.popleft())
        self._worker = None

    async def _answer(
        self, source: int, incarnation: int, header: pb.Rejoin, message: Message | None
    ) -> None:
        if header.phase in (pb.Rejoin.ASK, pb.Rejoin.JOIN):
            them = self._returning.get(source)
            which = (incarnation, header.number)
            if them is None or them.which < which:
                until_s = asyncio.get_running_loop().time() + self._wait_s
                them = self._returning[source] = _Returning(which, until_s)
                self._waiting.away(source)
            if header.phase == pb.Rejoin.JOIN and header.round > self._at:
                them.back, them.brings, them.given = header.round, message, None
            await self._reply(source, them)
        elif header.number != self._number:
            # of an earlier return
            return
        elif header.phase == pb.Rejoin.HERE:
            self._here[source] = header.round
        elif header.phase == pb.Rejoin.NOTED:
            self._noted.add(source)
        elif header.phase == pb.Rejoin.GIVE:
            self._given[source] = (header.round, message)
        self._news.set()

    async def _reply(self, peer: int, them: _Returning) -> None:
        if peer not in self._plan.links:
            return
        if them.given is not None:
            round_, message = them.given
            await self._say(peer, pb.Rejoin.GIVE, round_, message, them.which[1])
        elif them.back is not None:
            await self._say(peer, pb.Rejoin.NOTED, them.back, number=them.which[1])
        else:
            await self._say(peer, pb.Rejoin.HERE, max(self._at, 0), number=them.which[1])

    # -- coming back -----------------------------------------------------------------------------

    async def come_back(self, first: int, show: Show) -> tuple[int, dict[int, Message | None]]:
        """The round to go on in, at least ``first``, and what each neighbour has given.

        A neighbour that does not answer in the wait time-out is done without.
        """
        plan = self._plan
        self._at, self._coming, self._due = first - 1, True, False
        self._number += 1
        self._here, self._given = {}, {}
        heard = self._both_ways or set(plan.in_neighbors)

        async def ask() -> None:
            for peer in sorted(self._both_ways - set(self._here)):
                await self._say(peer, pb.Rejoin.ASK)

        def answered() -> bool:
            return heard - self._suspected <= set(self._here)

        await self._repeat(ask, answered, self._wait_s)
        # whoever does not answer now is not to make this node ask again
        self._last.clear()
        while True:
            round_ = max([first, *(1 + here for here in self._here.values())])
            if plan.stop_rounds is not None and round_ >= plan.stop_rounds:
                self._coming = False
                return round_, {}
            if await self._join(round_, {peer: show(peer) for peer in plan.links}):
                break
        self._coming = False
        given = {peer: what for peer, (r, what) in self._given.items() if r == round_}
        for peer, them in self._returning.items():
            if them.back == round_:
                # both come back in the same round: what it brings is what it gives
                given.setdefault(peer, them.brings)
        self._agreed.update(dict.fromkeys(given, round_))
        return round_, given

    async def _join(self, round_: int, brings: dict[int, Message | None]) -> bool:
        """Announce a round; whether it stands: False where a neighbour has begun it already."""
        asked = set(self._here) & set(self._plan.links)
        # what it tells others who come back: it has no part in the rounds before
        self._at = round_ - 1
        self._noted.clear()

        async def announce() -> None:
            for peer, message in sorted(brings.items()):
                if peer not in self._here or peer not in self._noted:
                    await self._say(peer, pb.Rejoin.JOIN, round_, message)
                elif peer in missing():
                    await self._say(peer, pb.Rejoin.ASK)

        def missing() -> set[int]:
            elsewhere = {
                peer
                for peer, them in self._returning.items()
                if them.back is not None and them.back >= round_
            }
            # who comes back too gives nothing, but must have heard
            due = asked - self._suspected - (elsewhere & self._noted)
            return {p for p in due if self._given.get(p, (-1,))[0] != round_}

        def late() -> bool:
            return any(here >= round_ for here in self._here.values())

        behind = round_ - min(self._here.values(), default=round_)
        await self._repeat(announce, lambda: late() or not missing(), self._wait_s * (2 + behind))
        return not late()

    async def _repeat(
        self, say: Callable[[], Awaitable[None]], done: Callable[[], bool], within_s: float
    ) -> None:
        """Say something again and again, at growing intervals, until it had its effect."""
        loop = asyncio.get_running_loop()
        deadline_s, interval_s, until_s = loop.time() + within_s, self._retry_s / _PROMPT, 0.0
        while not done() and until_s < deadline_s:
            await say()
            until_s = min(deadline_s, loop.time() + interval_s)
            try:
                async with asyncio.timeout_at(until_s):
                    while not done():
                        self._news.clear()
                        await self._news.wait()
            except TimeoutError:
                interval_s = min(2 * interval_s, self._retry_s * 2**_DOUBLINGS / _PROMPT)

    async def _say(
        self,
        peer: int,
        phase: pb.Rejoin.Phase.ValueType,
        round_: int = 0,
        message: Message | None = None,
        number: int | None = None,
    ) -> None:
        """``number``: the return that is answered; this node's own, if left out."""
        number = self._number if number is None else number
        await self._transmit(peer, pb.Rejoin(phase=phase, round=round_, number=number), message)
