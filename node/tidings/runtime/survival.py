"""The half of a node that is about surviving: checkpoints, and coming back."""

from __future__ import annotations

from typing import Any, TypeVar

from tidings.api.message import Message
from tidings.api.node import Resync
from tidings.faults.base import Mail
from tidings.runtime.keeping import Keeper, counted, recount
from tidings.runtime.parts import Parts
from tidings.runtime.plan import NodePlan
from tidings.runtime.pulse import Pulse
from tidings.runtime.reception import Reception
from tidings.runtime.strikes import Strikes
from tidings.runtime.turns import in_turn
from tidings.runtime.world import World
from tidings.v1 import data_pb2 as pb

S = TypeVar("S")

#: phases of the handshake that may carry something of the protocol's
_CARRYING = (pb.Rejoin.JOIN, pb.Rejoin.GIVE)


class Survival(Reception):
    """What a node keeps, and how it and its neighbours come back; see tidings.api.Node."""

    _keeper: Keeper
    strikes: Strikes
    #: the round in which :meth:`rounds` begins
    _first_round = 0
    #: the one that follows
    _next_round = 0
    #: whether the node went on from a checkpoint
    _restored = False

    def __init__(self, plan: NodePlan, parts: Parts, world: World) -> None:
        super().__init__(plan, parts, world)
        self._pulse = Pulse(plan, world, self.gate, self._beat, self._silent)

    async def _beat(self, target: int) -> None:
        frame = self.codec.heartbeat(self.round)
        await self.strikes.beat(Mail(target, None, self.round, frame))

    def _silent(self, peer: int, silent_s: float) -> None:
        self.log("suspected", peer=peer, silent_s=silent_s)
        self._suspect(peer, True)

    def take_over(self, old: Survival) -> None:
        """Go on with the books of a node that has crashed, but for those of its links."""
        books = counted(old.ledger, old._exchanger, old._mailbox.dropped)
        recount(self.ledger, self._exchanger, books | {"links": {}})
        self.ledger.completed = old.ledger.completed
        self._keeper.counters.update(old._keeper.counters)

    def restore(self) -> dict[str, Any] | None:
        self._alive()
        found, wrong = self._keeper.restore(self.ledger)
        for text in wrong:
            self.log("checkpoint_refused", reason=text)
        if self.plan.restore is None:
            return None
        self.log("restored", round=None if found is None else found.round)
        if found is None:
            return None
        self._restored = True
        self.model = found.node["model"]
        self._first_round = self.round = found.round
        return dict(found.parts)

    @in_turn
    async def keep(self, **parts: Any) -> None:
        self._alive()
        await self._keep(parts, self.ledger.completed)

    async def _keep(self, parts: dict[str, Any] | None, completed: int) -> None:
        failure = await self._keeper.keep(parts, self.model, self.ledger, completed)
        self._alive()
        if failure is not None:
            self.log("checkpoint_failed", reason=failure)

    async def rejoin(self, state: S, protocol: Resync) -> S:
        self._alive()
        if not self.plan.incarnation or self.plan.resumed:
            return state

        restored = self._first_round if self._restored else None
        round_, given = await self._come_back(state, protocol, self._first_round)
        self._first_round = self.round = round_
        return self._agree(state, protocol, given, restored=restored)

    async def _come_back(
        self, state: S, protocol: Resync, first: int
    ) -> tuple[int, dict[int, Message | None]]:
        def show(peer: int) -> Message | None:
            return protocol.resync_with(state, peer, self)

        with self.waiting.doing("its neighbours, to come back", self.clock.now_s, timed=True):
            found = await self._rejoiner.come_back(first, show)
        self._alive()
        return found

    def _agree(
        self, state: S, protocol: Resync, given: dict[int, Message | None], **fields: Any
    ) -> S:
        for peer in sorted(given):
            state = protocol.resync(state, peer, given[peer], self)
        unheard = [peer for peer in self.plan.neighbors if peer not in given]
        self.log("rejoined", round=self.round, agrees_with=sorted(given), unheard=unheard, **fields)
        return state

    def returned(self) -> None:
        """The node was away by its own will and is back: it asks where the others are."""
        if not self.gate.closed and self._rejoiner.left():
            for peer in self.plan.in_neighbors:
                self.waiting.away(peer)

    async def welcome(self, state: S, protocol: Resync) -> S:
        state = await self._meet(state, protocol)
        while self._rejoiner.behind(self.round):
            state = await self._catch_up_with_others(state, protocol)
        return state

    async def _catch_up_with_others(self, state: S, protocol: Resync) -> S:
        """Leave out the rounds that are over for the others; their last one, at most."""
        was, limit = self.round, self.plan.stop_rounds
        round_, given = await self._come_back(state, protocol, was)
        round_ = round_ if limit is None else max(was, min(round_, limit - 1))
        if round_ > was:
            for kind in self.codec.types:
                self._mailbox.take_round(kind, round_ - 1, set())
            await self.catch_up(round_)
            self._next_round = round_ + 1
        state = self._agree(state, protocol, given, was=was)
        return await self._meet(state, protocol)

    async def _meet(self, state: S, protocol: Resync) -> S:
        """Begin a round together with those who are back from it on."""
        self._alive()
        back = await self._rejoiner.begin(self.round, self.clock.now_s)
        self._alive()
        gifts = [(peer, protocol.resync_with(state, peer, self)) for peer, _ in back]
        for peer, brought in back:
            state = protocol.resync(state, peer, brought, self)
        for peer, message in gifts:
            await self._rejoiner.give(peer, message)
            self._alive()
        return state

    def _rejoin_arrived(
        self, source: int, incarnation: int, header: pb.Rejoin, message: Message | None
    ) -> str | None:
        """Take a frame of the handshake; why it is refused, if it is."""
        wanted = self.protocol.resyncs if header.phase in _CARRYING else None
        if message is not None and (wanted is None or type(message) is not wanted):
            return "malformed"
        return self._rejoiner.arrived(source, incarnation, header, message)
