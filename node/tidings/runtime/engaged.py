"""The part of a node that is about what it is engaged in beside messages: tasks and exchanges."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from tidings.api.message import Message
from tidings.api.node import Ask, Commit, Offer, Outcome, Tasks
from tidings.faults.base import Mail
from tidings.runtime.byzantine import Attacker
from tidings.runtime.exchange import Exchanger, carried_by, retry_interval_s
from tidings.runtime.exchange_again import ExchangerAgain
from tidings.runtime.parts import Parts
from tidings.runtime.plan import NodePlan, Turn
from tidings.runtime.rejoin import Rejoiner
from tidings.runtime.survival import Survival
from tidings.runtime.tasks import TaskBlock
from tidings.runtime.turns import Recorder, Script, in_turn
from tidings.runtime.world import World
from tidings.v1 import data_pb2 as pb

Handshake = pb.Exchange | pb.Rejoin


class Engaged(Survival):
    """Tasks, time and exchanges; see tidings.api.Node."""

    _attacker: Attacker | None = None

    def __init__(self, plan: NodePlan, parts: Parts, world: World) -> None:
        super().__init__(plan, parts, world)
        retry_s = retry_interval_s(plan, self.codec, self.protocol)
        self._exchanger = self._make_exchanger(retry_s)
        self._rejoiner = Rejoiner(plan, self._handshake, self.waiting, retry_s, self._suspected)
        self._ended = asyncio.Event()

    def _make_exchanger(self, retry_s: float) -> Exchanger:
        if isinstance(self.turns, Script):
            return ExchangerAgain(self.id, self._handshake, self.turns, self._befallen)
        exchanger = Exchanger(
            self.id,
            self._handshake,
            retry_s,
            self._suspected,
            carried_by(self.protocol),
            self.plan.incarnation,
        )
        if isinstance(self.turns, Recorder):
            exchanger.note = self.turns.note
        return exchanger

    def _befallen(self, turn: Turn) -> None:
        """In a replay: something has come from outside that is no part of an exchange."""
        if turn.what == "over":
            self._over()
        elif turn.what == "suspected":
            self._suspected.add(turn.peer)
        else:
            self._suspected.discard(turn.peer)

    @abstractmethod
    def _over(self) -> None:
        """The run is ended from outside."""

    @abstractmethod
    async def _transmit(
        self, target: int, message: Message | None, handshake: Handshake | None
    ) -> Outcome:
        """Hand what there is to the link."""

    # -- exchange ------------------------------------------------------------------------

    def on_exchange(self, offer: Offer, commit: Commit) -> None:
        self._exchanger.register(offer, commit)

    async def exchange(
        self, peer: int, ask: Ask | None = None, within_s: float | None = None
    ) -> Outcome:
        self._alive()
        if peer not in self.plan.links:
            self.ledger.refused["not_a_neighbor"] += 1
            return Outcome.REFUSED
        call = None if self.turns is None else self.turns.call()
        deadline = self._deadline(within_s)
        timed = deadline is not None
        with self.waiting.doing(f"exchange with {peer}", self.clock.now_s, timed):
            outcome = await self._exchanger.start(peer, ask, deadline, call)
        if isinstance(self.turns, Recorder):
            self.turns.note("exchange", call=call, outcome=outcome.value)
        return outcome

    def exclusive(self) -> AbstractAsyncContextManager[None]:
        self._alive()
        return self._exclusive()

    @asynccontextmanager
    async def _exclusive(self) -> AsyncIterator[None]:
        turns = self.turns
        call = None if turns is None else turns.call()
        async with self._exchanger.exclusive():
            if turns is not None and call is not None:
                await turns.reached(call, "exclusive")
            yield

    async def _handshake(self, peer: int, header: Handshake, message: Message | None) -> None:
        if self._attacker is not None and message is not None:
            message = self._attacker.rewrite_alone(message, peer)
        await self._transmit(peer, message, header)

    def take_leave(self) -> None:
        """Just before it goes: a peer that has made it an offer is not left in doubt."""
        if (farewell := self._exchanger.farewell()) is not None:
            peer, header = farewell
            frame = self.codec.encode(None, self.round, header)
            # not by the gate, which closes now
            sending = self.strikes.send(Mail(peer, None, self.round, frame))
            self._farewell = asyncio.create_task(sending)

    # -- time and tasks ------------------------------------------------------------------

    @in_turn
    async def sleep(self, duration_s: float) -> None:
        self._alive()
        with self.waiting.doing("sleep", self.clock.now_s, timed=True):
            await asyncio.sleep(duration_s * self._world.time_scale / self.clock.rate)
        await self.gate.passed()
        self._alive()

    @in_turn
    async def ended(self) -> None:
        self._alive()
        with self.waiting.doing("the end of the run", self.clock.now_s):
            await self._ended.wait()

    def tasks(self) -> AbstractAsyncContextManager[Tasks]:
        self._alive()
        return TaskBlock(self.turns)
