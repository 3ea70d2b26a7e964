"""Atomic pairwise exchange: two-phase commit between two nodes, the starting one decides.

::

    starter                    answerer
    engaged   -- ASK(ask) -->            engaged or closed: REFUSE
              <-- OFFER(value) --        engaged; repeats the offer until it hears a decision
    commits   -- COMMIT(value) -->       commits

The starter decides by committing: whoever asks about an exchange that it did not commit is told
ABORT (presumed abort). So both commit or neither does, whatever messages are lost; only a starter
that dies between its commit and the answerer's leaves the answerer in doubt, which is counted and
taken for an abort. Asks, offers and decisions may be repeated, at growing intervals: each is
answered the same way again.

A starter whose peer is suspected dead gives up at once: it has not committed, so a peer that was
suspected wrongly hears ABORT, now or when it asks. An answerer cannot, for the starter may have
committed: it stays engaged, and asks several times more before it is in doubt.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Set
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

from tidings.api.message import Message
from tidings.api.node import Ask, Commit, Offer, Outcome
from tidings.api.protocol import Protocol
from tidings.runtime.plan import NodePlan
from tidings.v1 import data_pb2 as pb
from tidings.wire.codec import Codec

#: sends (peer, handshake, message) over the link, in order
Transmit = Callable[[int, pb.Exchange, Message | None], Awaitable[None]]
#: the type of message that a frame of each phase has to carry, None for no message
Carried = Mapping[int, type[Message] | None]

#: how often an answerer repeats its offer before it gives up a starter that is suspected dead
_PATIENCE = 5
#: repeats after which the interval between them doubles, and how often it does
_PROMPT, _DOUBLINGS = 3, 6
#: frames of one peer that may wait for an answer; an honest one has a few on their way
_WAITING_FRAMES = 64


@dataclass
class _Open:
    """The exchange that a node is engaged in."""

    peer: int
    id: int
    starter: int
    #: starter: what it asks with; answerer: what it offers
    value: Message | None
    #: starter: until when it waits
    limit: asyncio.Timeout | None = None
    outcome: asyncio.Future[Outcome] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    repeats: int = 0
    #: since when an answer is awaited, loop seconds
    since_s: float = field(default_factory=lambda: asyncio.get_running_loop().time())

    def is_with(self, peer: int, id_: int, starter: int) -> bool:
        """Whether a frame belongs to this exchange."""
        return (self.peer, self.id, self.starter) == (peer, id_, starter)

    def awaits(self, peer: int, id_: int, starter: int) -> bool:
        """Whether it may decide this exchange."""
        return self.is_with(peer, id_, starter) and not self.outcome.done()

    def header(self, phase: pb.Exchange.Phase.ValueType) -> pb.Exchange:
        """The handshake of one phase."""
        return pb.Exchange(phase=phase, id=self.id, starter=self.starter)


def carried_by(protocol: Protocol) -> Carried:
    """What the frames of the protocol's exchanges carry; its first message where it is silent."""
    value = protocol.exchanged or protocol.messages[0]
    return {
        pb.Exchange.ASK: protocol.asks_with,
        pb.Exchange.OFFER: value,
        pb.Exchange.REFUSE: None,
        pb.Exchange.COMMIT: value,
        pb.Exchange.ABORT: None,
    }


def retry_interval_s(plan: NodePlan, codec: Codec, protocol: Protocol) -> float:
    """Loop seconds that an answer may reasonably take: several times an undisturbed exchange."""
    frame_bytes = max(map(codec.expected_bytes, protocol.messages))
    card = min(plan.nic.egress_bit_per_s, plan.nic.ingress_bit_per_s)
    times_s = [
        shape.delay_ns / 1e9 + 8 * frame_bytes / min(shape.rate_bit_per_s, card)
        for shape in plan.links.values()
    ]
    return (1.0 + 8 * max(times_s, default=0.0)) * plan.time_scale


class Exchanger:
    """One node's side of all its exchanges.

    ``retry_s`` is in seconds of the loop; ``suspected`` are the peers that are suspected dead now.
    """

    def __init__(
        self,
        node: int,
        transmit: Transmit,
        retry_s: float,
        suspected: Set[int],
        carried: Carried,
        incarnation: int = 0,
    ) -> None:
        self._node = node
        self._send = transmit
        #: told what the protocol is asked for, before it is
        self.note: Callable[..., None] = lambda what, **found: None
        self._carried = carried
        self._retry_s = retry_s
        self._suspected = suspected
        self._offer: Offer | None = None
        self._commit: Commit | None = None
        self._open: _Open | None = None
        self._closed = 0
        # an id of a process that died is never used again
        self._next_id = (incarnation << 32) + 1
        #: the last exchange committed with each peer as starter: (id, value), to repeat on demand
        self._committed: dict[int, tuple[int, Message]] = {}
        #: the last one committed with each peer as answerer: what it asks of that comes too late
        self._answered: dict[int, int] = {}
        self._inbox: asyncio.Queue[tuple[int, pb.Exchange, Message | None]] = asyncio.Queue()
        self._waiting: Counter[int] = Counter()
        self._freed = asyncio.Event()
        #: committed, refused, aborted, in_doubt, nonsense
        self.counters: Counter[str] = Counter()

    @property
    def participates(self) -> bool:
        """Whether the protocol takes part in exchanges."""
        return self._offer is not None

    def register(self, offer: Offer, commit: Commit) -> None:
        """The protocol's two halves of every exchange."""
        self._offer, self._commit = offer, commit

    def arrived(
        self, source: int, header: pb.Exchange, message: Message | None
    ) -> Literal["malformed", "overflow"] | None:
        """A frame of an exchange has come; why it is refused, if it is.

        What the protocol's offer and commit are given is of the type that they expect, so what
        they raise is the protocol's own fault and fails the run.
        """
        if header.phase not in self._carried or not self._fits(header.phase, message):
            return "malformed"
        if self._waiting[source] >= _WAITING_FRAMES:
            return "overflow"
        self._waiting[source] += 1
        self._inbox.put_nowait((source, header, message))
        return None

    def _fits(self, phase: int, message: Message | None) -> bool:
        kind = self._carried[phase]
        return message is None if kind is None else type(message) is kind

    async def _transmit(self, peer: int, header: pb.Exchange, message: Message | None) -> None:
        if not self._fits(header.phase, message):
            name = "asks_with" if header.phase == pb.Exchange.ASK else "exchanged"
            raise TypeError(f"{type(message).__name__} in an exchange: declare it as '{name}'")
        await self._send(peer, header, message)

    async def start(
        self, peer: int, ask: Ask | None, within_s: float | None, call: int | None = None
    ) -> Outcome:
        """Exchange with ``peer``; REFUSED where it did not happen within the deadline, if any.

        Nor is it waited for once the peer is suspected dead; one that was before is asked once, so
        that two that suspect each other find each other again. ``call`` is the number by which the
        notes know this call of the protocol's.
        """
        if not self.participates:
            raise RuntimeError("exchange() needs on_exchange(offer, commit) first")
        mine: _Open | None = None
        try:
            async with asyncio.timeout(within_s) as limit:
                await self._wait_free()
                self.note("ask", call=call, peer=peer, id=self._next_id)
                shown = None if ask is None else ask()
                mine = self._open = _Open(peer, self._next_id, self._node, shown, limit)
                self._next_id += 1
                while not mine.outcome.done():
                    await self._transmit(peer, mine.header(pb.Exchange.ASK), shown)
                    await asyncio.wait([mine.outcome], timeout=self._interval_s(mine))
                    mine.repeats += 1
                    if peer in self._suspected:
                        raise TimeoutError
        except TimeoutError:
            if mine is not None and self._give_up(mine):
                await self._transmit(peer, mine.header(pb.Exchange.ABORT), None)
        finally:
            # cancelled: the peer asks again and is told that nothing was committed
            outcome = self._conclude(mine)
        return outcome

    def farewell(self) -> tuple[int, pb.Exchange] | None:
        """Give up what this node asked for and has not decided: whom to tell so, and how."""
        mine = self._open
        if mine is None or mine.starter != self._node or not self._give_up(mine):
            return None
        return mine.peer, mine.header(pb.Exchange.ABORT)

    def suspected(self, peer: int) -> None:
        """A peer is suspected dead: what was asked of it, and is not decided, is over now."""
        mine = self._open
        waits = mine is not None and mine.peer == peer and not mine.outcome.done()
        if mine is not None and waits and mine.limit is not None and not mine.limit.expired():
            mine.limit.reschedule(asyncio.get_running_loop().time())

    def _give_up(self, mine: _Open) -> bool:
        """Decide against an exchange that is still undecided."""
        if mine.outcome.done():
            return False
        mine.outcome.set_result(Outcome.REFUSED)
        return True

    def _conclude(self, mine: _Open | None) -> Outcome:
        """Count what became of an exchange that this node started, and be free for the next."""
        if mine is not None:
            self._give_up(mine)
            if self._open is mine:
                self._free()
        outcome = Outcome.REFUSED if mine is None else mine.outcome.result()
        self.counters["committed" if outcome is Outcome.DELIVERED else "refused"] += 1
        return outcome

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[None]:
        """No exchange is open, and none is accepted, inside this block."""
        self._closed += 1
        try:
            while self._open is not None:
                self._freed.clear()
                await self._freed.wait()
            yield
        finally:
            self._closed -= 1
            self._freed.set()

    async def settle(self, within_s: float) -> None:
        """Accept no further exchange and wait until the open one is decided."""
        self._closed += 1
        try:
            async with asyncio.timeout(within_s):
                while self._open is not None:
                    self._freed.clear()
                    await self._freed.wait()
        except TimeoutError:
            if self._answering:
                self.counters["in_doubt"] += 1
                self._free()

    async def serve(self) -> None:
        """Answer what arrives, one frame after the other, until cancelled."""
        handlers = {
            pb.Exchange.ASK: self._on_ask,
            pb.Exchange.OFFER: self._on_offer,
            pb.Exchange.REFUSE: self._on_refuse,
            pb.Exchange.COMMIT: self._on_commit,
            pb.Exchange.ABORT: self._on_abort,
        }
        while True:
            try:
                async with asyncio.timeout_at(self._repeat_at_s()):
                    source, header, message = await self._inbox.get()
                    self._waiting[source] -= 1
            except TimeoutError:
                await self._repeat_offer()
                continue
            handler = handlers.get(header.phase)
            if handler is not None:
                await handler(source, header, message)

    # -- as the one that is asked -------------------------------------------------------------

    @property
    def _answering(self) -> bool:
        return self._open is not None and self._open.starter != self._node

    async def _on_ask(self, source: int, header: pb.Exchange, message: Message | None) -> None:
        mine = self._open
        if mine is not None and mine.is_with(source, header.id, source):
            await self._transmit(source, mine.header(pb.Exchange.OFFER), mine.value)
            return
        if mine is not None and mine.peer == source and mine.starter == self._node:
            # both ask each other: one of them goes first, as both see, and not always the same one
            order = max if (mine.id + header.id) % 2 else min
            if order(self._node, source) == source:
                self._give_up(mine)
                self._free()
        over = header.id <= self._answered.get(source, 0)
        busy = self._open is not None or self._closed or self._offer is None or over
        if not busy:
            self.note("offer", peer=source, id=header.id)
        value = None if busy or self._offer is None else self._offer(source, message)
        if value is None:
            self.counters["nonsense"] += not busy
            refusal = pb.Exchange(phase=pb.Exchange.REFUSE, id=header.id, starter=source)
            await self._transmit(source, refusal, None)
            return
        self._open = _Open(source, header.id, source, value)
        await self._transmit(source, self._open.header(pb.Exchange.OFFER), value)

    def _repeat_at_s(self) -> float | None:
        """When the open offer is to be repeated, loop seconds; other arrivals do not put it off."""
        mine = self._open
        return mine.since_s + self._interval_s(mine) if mine and self._answering else None

    async def _repeat_offer(self) -> None:
        mine = self._open
        if mine is None or mine.starter == self._node:
            return
        mine.repeats += 1
        mine.since_s = asyncio.get_running_loop().time()
        if mine.repeats > _PATIENCE and mine.peer in self._suspected:
            self.counters["in_doubt"] += 1
            self._free()
            return
        await self._transmit(mine.peer, mine.header(pb.Exchange.OFFER), mine.value)

    async def _on_commit(self, source: int, header: pb.Exchange, message: Message | None) -> None:
        mine = self._open
        if mine is None or message is None or mine.value is None or self._commit is None:
            return
        if mine.is_with(source, header.id, source):
            self.note("commit", peer=source, id=header.id)
            self._commit(source, mine.value, message)
            self._answered[source] = header.id
            self.counters["committed"] += 1
            self._free()

    async def _on_abort(self, source: int, header: pb.Exchange, message: Message | None) -> None:
        mine = self._open
        if mine is not None and mine.is_with(source, header.id, source):
            self.counters["aborted"] += 1
            self._free()

    # -- as the one that started ---------------------------------------------------------------

    async def _on_offer(self, source: int, header: pb.Exchange, message: Message | None) -> None:
        mine = self._open
        if header.starter != self._node or message is None:
            return
        if (
            mine is not None
            and mine.awaits(source, header.id, self._node)
            and self._offer is not None
            and self._commit is not None
        ):
            self.note("decide", peer=source, id=header.id)
            value = self._offer(source, message)
            if value is None:
                self.counters["nonsense"] += 1
                self._give_up(mine)
            else:
                self._commit(source, value, message)
                self._committed[source] = (header.id, value)
                mine.outcome.set_result(Outcome.DELIVERED)
        decided = self._committed.get(source)
        if decided is not None and decided[0] == header.id:
            decision = pb.Exchange(phase=pb.Exchange.COMMIT, id=header.id, starter=self._node)
            await self._transmit(source, decision, decided[1])
        else:
            decision = pb.Exchange(phase=pb.Exchange.ABORT, id=header.id, starter=self._node)
            await self._transmit(source, decision, None)

    async def _on_refuse(self, source: int, header: pb.Exchange, message: Message | None) -> None:
        mine = self._open
        if mine is not None and mine.awaits(source, header.id, self._node):
            mine.outcome.set_result(Outcome.REFUSED)

    def _interval_s(self, mine: _Open) -> float:
        """How long to wait for an answer before asking again."""
        return self._retry_s * 2.0 ** min(max(0, mine.repeats - _PROMPT), _DOUBLINGS)

    # -- engagement ----------------------------------------------------------------------------

    async def _wait_free(self) -> None:
        while self._open is not None or self._closed:
            self._freed.clear()
            await self._freed.wait()

    def _free(self) -> None:
        self._open = None
        self._freed.set()
