"""The receiving half of a node: frames in, mailbox, waits."""

from __future__ import annotations

import asyncio
import hashlib
import math
from abc import abstractmethod
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from tidings.api.message import Delivery, Inbox, Message
from tidings.api.node import Node, WaitFor
from tidings.errors import RunError, WireError
from tidings.runtime.clocks import SkewedClock
from tidings.runtime.exchange import Exchanger
from tidings.runtime.gate import Gate
from tidings.runtime.ledger import Ledger
from tidings.runtime.mailbox import Mailbox
from tidings.runtime.parts import Parts
from tidings.runtime.plan import NodePlan
from tidings.runtime.pulse import Pulse
from tidings.runtime.rejoin import Rejoiner
from tidings.runtime.timeline import Timeline
from tidings.runtime.turns import Recorder, Script
from tidings.runtime.waiting import Waiting
from tidings.runtime.world import World
from tidings.v1 import data_pb2 as pb
from tidings.wire.codec import Incoming
from tidings.wire.frame import Buffer

M = TypeVar("M", bound=Message)


class Reception(Node):
    """What a node does about what comes, and about what does not."""

    _exchanger: Exchanger
    _rejoiner: Rejoiner
    _pulse: Pulse

    def __init__(self, plan: NodePlan, parts: Parts, world: World) -> None:
        self.plan = plan
        self.id, self.n, self.role = plan.node, plan.nodes, plan.role
        self.round = self.step = 0
        self.graph, self.wait_s = plan.graph, plan.wait_s
        self.clock: SkewedClock = SkewedClock(world.clock)
        self.gate = Gate()
        self.protocol, self.problem, self.codec = parts.protocol, parts.problem, parts.codec
        self.timeline = Timeline(plan.node, world.clock, plan.timeline)
        self.waiting = Waiting(self.timeline)
        self.ledger = Ledger(plan.node, world.transport.links)
        #: measures links before the run; not part of the protocol
        self.on_probe: Callable[[int, pb.Probe], None] = lambda source, probe: None
        #: behind the fence
        self.dead = False
        self._world = world
        self._mailbox = Mailbox(plan.mailbox_messages)
        #: how the order in which it goes on is written down, or repeated
        self.turns: Recorder | Script | None = None
        if plan.script is not None:
            self.turns = Script(plan.node, plan.script, self.clock, self.waiting)
        elif plan.order:
            self.turns = Recorder(self.clock, self.log)
        self._suspected: set[int] = set()
        #: peers that have said that they go, whatever of theirs is still on its way
        self._left: set[int] = set()
        #: those that let a deadline pass: a heartbeat does not make them punctual
        self._late: set[int] = set()
        self._heard = frozenset(plan.in_neighbors)
        #: the latest incarnation of each in-neighbour that was heard of
        self._incarnations: defaultdict[int, int] = defaultdict(int)
        world.transport.receive = self._receive
        world.transport.suspect = self._suspect

    @abstractmethod
    def _alive(self) -> None:
        """NodeCrashed behind the fence."""

    @abstractmethod
    def _rejoin_arrived(
        self, source: int, incarnation: int, header: pb.Rejoin, message: Message | None
    ) -> str | None:
        """Take a frame of the handshake of a return; why it is refused, if it is."""

    async def gather(
        self,
        kind: type[M],
        *,
        of: tuple[int, ...] | None = None,
        wait_for: WaitFor | None = None,
        within_s: float | None = None,
    ) -> Inbox[M]:
        call = None if self.turns is None else self.turns.call()
        await self.gate.passed()
        self._alive()
        sources = set(self.in_neighbors if of is None else of)
        round_, step = self.round, self.step
        policy = self.plan.wait_for if wait_for is None else wait_for
        not_awaited = set(self._suspected)
        if isinstance(self.turns, Script):
            found = await self._there_again(kind, round_, step, call, "gather")
        else:
            await self._wait_round(kind, round_, step, sources, policy, within_s)
            found = sources
        taken = self._mailbox.take_round(kind, round_, found, step)
        missing = tuple(sorted(sources - set(taken)))
        self.ledger.refused["missing"] += len(missing)
        if policy == "live":
            # whoever let a deadline pass is not waited for again until it is heard
            for source in set(missing) - not_awaited - self._rejoiner.away(round_):
                self._late.add(source)
                self._suspect(source, True)
        self._note("gather", call, kind, round_, step, tuple(taken))
        return Inbox(taken, missing)  # type: ignore[arg-type]

    async def _there_again(
        self, kind: type[Message], round_: int, step: int, call: int | None, what: str
    ) -> set[int]:
        """In a replay: the sources of what was there at this point, as soon as it is there again.

        RunError where something else was waited for.
        """
        assert isinstance(self.turns, Script)
        turn = await self.turns.mine(call, what)
        if (turn.kind, turn.round, turn.step) != (kind.__name__, round_, step):
            raise RunError(
                f"node {self.id} wants {kind.__name__} of round {round_} where it wanted "
                f"{turn.kind} of round {turn.round}: this is not the run that was recorded"
            )
        sources = set(turn.sources)
        await self._wait_round(kind, round_, step, sources, "all", math.inf)
        self.turns.take(turn)
        return sources

    async def _wait_round(
        self,
        kind: type[Message],
        round_: int,
        step: int,
        sources: set[int],
        wait_for: WaitFor,
        within_s: float | None,
    ) -> None:
        """Until the messages of a round and step are there, or the deadline."""
        heard = self._mailbox.heard(kind, round_, step) & sources
        pending = sources - heard - self._rejoiner.away(round_)
        need = len(pending)
        if isinstance(wait_for, int):
            need = min(need, max(0, min(wait_for, len(sources)) - len(heard)))
        live = self._suspected if wait_for == "live" else None
        await self.waiting.round(
            kind, round_, pending, need, self._deadline(within_s), self.clock.now_s, live, step
        )
        self._alive()

    def _deadline(self, within_s: float | None) -> float | None:
        """A deadline in loop seconds; None for never."""
        within_s = self.plan.wait_s if within_s is None else within_s
        return None if math.isinf(within_s) else within_s * self._world.time_scale

    async def recv(self, kind: type[M], within_s: float | None = None) -> Delivery[M] | None:
        call = None if self.turns is None else self.turns.call()
        self._alive()
        if isinstance(self.turns, Script):
            return await self._recv_again(kind, self.turns, call)
        limit_s = self._deadline(within_s)
        began_s, woken = asyncio.get_running_loop().time(), True
        # an arrival wakes all who wait for its kind, and only one of them gets it
        while (delivery := self._mailbox.take_next(kind)) is None and woken:
            past_s = asyncio.get_running_loop().time() - began_s
            left_s = None if limit_s is None else max(0.0, limit_s - past_s)
            woken = await self.waiting.next(kind, left_s, self.clock.now_s)
            await self.gate.passed()
            self._alive()
        if isinstance(self.turns, Recorder) and delivery is None:
            self.turns.note("recv", call=call)
        elif isinstance(self.turns, Recorder) and delivery is not None:
            of = {"sources": [delivery.source], "digest": delivery.digest}
            self.turns.note("recv", call=call, **of)
        return delivery  # type: ignore[return-value]

    async def _recv_again(
        self, kind: type[M], script: Script, call: int | None
    ) -> Delivery[M] | None:
        """What was taken here in the run that is replayed, as soon as it is there."""
        turn = await script.mine(call, "recv")
        if not turn.sources:
            script.take(turn)
            return None
        # one that was delivered twice is there once
        delivery = script.copies.get(turn.digest)
        while delivery is None:
            delivery = self._mailbox.take(turn.sources[0], turn.digest)
            if delivery is None:
                await self.waiting.next(kind, None, self.clock.now_s)
                self._alive()
        script.take(turn)
        if turn.digest in script.copied:
            script.copies[turn.digest] = delivery
        return delivery

    def _note(
        self,
        what: str,
        call: int | None,
        kind: type[Message],
        round_: int,
        step: int,
        sources: tuple[int, ...],
    ) -> None:
        """Write down what a wait has ended with, where that is asked for."""
        if isinstance(self.turns, Recorder):
            at = {"round": round_, "step": step, "sources": sources}
            self.turns.note(what, call=call, kind=kind.__name__, **at)

    async def messages(self, kind: type[M]) -> AsyncIterator[Delivery[M]]:
        while True:
            delivery = await self.recv(kind, math.inf)
            if delivery is not None:
                yield delivery

    def _receive(self, source: int, data: Buffer) -> None:
        """A frame has come; anything wrong with it is counted, and the node goes on."""
        if self.dead:
            return
        if self.gate.closed and self.gate.hold(lambda: self._receive(source, data)):
            return
        try:
            incoming = self.codec.decode(data)
        except WireError as error:
            self.ledger.nonsense(source, len(data), error.reason)
            return
        if source not in self._heard:
            self.ledger.refused["not_a_neighbor"] += 1
            return
        if incoming.incarnation < self._incarnations[source]:
            self.ledger.refused["old_incarnation"] += 1
            return
        if incoming.incarnation > self._incarnations[source]:
            self._incarnations[source] = incoming.incarnation
        self._heard_of(source, incoming)
        if incoming.probe is not None:
            self.on_probe(source, incoming.probe)
            return
        self.ledger.arrived(source, incoming.counts, self.round - incoming.round)
        if self.gate.closed:
            self.ledger.refused["away"] += 1
            return
        if incoming.heartbeat:
            return
        if self.plan.trace:
            self.log("received", source=source, round=incoming.round, digest=_digest(data))
        if incoming.exchange is not None:
            # whom we hear and have no link to we cannot answer
            reason = "not_a_neighbor" if source not in self.plan.links else None
            reason = reason or self._exchanger.arrived(source, incoming.exchange, incoming.message)
            if reason is not None:
                self.ledger.refused[reason] += 1
        elif incoming.rejoin is not None:
            reason = self._rejoin_arrived(
                source, incoming.incarnation, incoming.rejoin, incoming.message
            )
            if reason is not None:
                self.ledger.refused[reason] += 1
        elif incoming.message is not None:
            message, round_, step = incoming.message, incoming.round, incoming.step
            self._rejoiner.saw(source, round_)
            digest = "" if self.turns is None else _digest(data)
            if self._mailbox.put(source, round_, message, step, digest) == "kept":
                self.waiting.arrived(type(message), round_, source, step)

    def _heard_of(self, source: int, incoming: Incoming) -> None:
        """A neighbour is there."""
        if self._pulse.heard(source):
            self.log("trusted", peer=source)
        if not incoming.heartbeat:
            self._late.discard(source)
        if source in self._suspected and source not in self._late:
            self._suspect(source, False)
        if self._rejoiner.heard(source, incoming.round):
            self.waiting.away(source)

    def told(self, peer: int, present: bool) -> None:
        """It is known for certain whether a peer takes part."""
        (self._left.discard if present else self._left.add)(peer)
        self._suspect(peer, not present)

    def _suspect(self, peer: int, dead: bool) -> None:
        if isinstance(self.turns, Script) or (not dead and peer in self._left):
            return
        if isinstance(self.turns, Recorder) and dead != (peer in self._suspected):
            self.turns.note("suspected" if dead else "trusted", peer=peer)
        (self._suspected.add if dead else self._suspected.discard)(peer)
        if dead:
            self.waiting.suspected(self._suspected)
            self._exchanger.suspected(peer)

    async def _spy(self, kind: type[Message], sources: set[int]) -> Inbox[Message]:
        """A rushing attacker's look at what others send in this round, without taking it.

        Where a message is sent by one role only, no neighbour sends it: they have the other one.
        """
        sources = sources & set(self.in_neighbors) if kind.sender is None else set()
        round_, step = self.round, self.step
        call = None if self.turns is None else self.turns.call()
        if isinstance(self.turns, Script):
            heard = await self._there_again(kind, round_, step, call, "spy")
        else:
            await self._wait_round(kind, round_, step, sources, self.plan.wait_for, None)
            heard = self._mailbox.heard(kind, round_, step) & sources
        self._note("spy", call, kind, round_, step, tuple(sorted(heard)))
        return Inbox({j: self._mailbox.peek(kind, round_, j, step) for j in heard})


def _digest(data: Buffer) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()
