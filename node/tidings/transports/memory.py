"""The network of the simulator: the same frames over the same link model, in virtual time."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tidings.links.model import Departure, Egress, Ingress
from tidings.links.shape import LinkShape, NicShape
from tidings.transports.base import LinkCounters, Transport
from tidings.transports.virtual_time import VirtualLoop
from tidings.units import NS_PER_S
from tidings.wire.frame import Frame


@dataclass(frozen=True, slots=True)
class _Arrival:
    """A chunk on its way through the receiver's network card."""

    source: int
    frame: Frame
    last: bool


class MemoryNetwork:
    """All nodes' links in one process. ``loop`` is the virtual loop that keeps the time.

    ``trace`` is a running hash over every delivery (time, source, target, bytes): equal seeds must
    give equal traces.
    """

    def __init__(self, loop: VirtualLoop, seed: int) -> None:
        self.loop = loop
        self.seed = seed
        self.nodes: dict[int, MemoryTransport] = {}
        self._trace = hashlib.sha256()
        self.deliveries = 0

    def join(
        self,
        node: int,
        links: Mapping[int, LinkShape],
        nic: NicShape,
        quantum_bytes: int,
        seed: int | None = None,
    ) -> MemoryTransport:
        """A node's transport, with a seed of its own where the node comes back."""
        seed = self.seed if seed is None else seed
        transport = MemoryTransport(self, node, links, nic, quantum_bytes, seed)
        self.nodes[node] = transport
        return transport

    @property
    def trace_hash(self) -> str:
        """The hash over all deliveries so far."""
        return self._trace.hexdigest()

    def deliver(self, source: int, target: int, frame: Frame) -> None:
        """Hand a whole frame to its receiver, now."""
        receiver = self.nodes[target]
        self.nodes[source]._in_flight(target, frame, -1)
        data = frame.joined()
        head = f"{self.loop.now_ns}:{source}>{target}:{len(data)}:".encode()
        self._trace.update(head + hashlib.blake2b(data, digest_size=8).digest())
        self.deliveries += 1
        if receiver.alive:
            receiver.receive(source, data)
        else:
            self.nodes[source].links[target].undeliverable_messages += 1
            self.nodes[source].links[target].undeliverable_bytes += frame.size_bytes


class MemoryTransport(Transport):
    """One node's links in the simulator."""

    def __init__(
        self,
        network: MemoryNetwork,
        node: int,
        links: Mapping[int, LinkShape],
        nic: NicShape,
        quantum_bytes: int,
        seed: int,
    ) -> None:
        self._network = network
        self._node = node
        self._egress: Egress[Frame] = Egress(node, seed, links, nic.egress_bit_per_s, quantum_bytes)
        self._ingress: Ingress[_Arrival] = Ingress(nic.ingress_bit_per_s, quantum_bytes)
        self._egress_wake: asyncio.TimerHandle | None = None
        self._ingress_wake: asyncio.TimerHandle | None = None
        self._senders: dict[int, asyncio.Lock] = {target: asyncio.Lock() for target in links}
        self.links = {target: LinkCounters(in_flight_messages=0) for target in links}
        self.alive = True
        self._died_ns = 0

    async def send(self, target: int, frame: Frame, copy: bool = False) -> None:
        """As Transport.send, on virtual time."""
        async with self._senders[target]:
            loop = self._network.loop
            began_ns = loop.now_ns
            while True:
                room_ns = self._egress.room_ns(loop.now_ns, target, frame.size_bytes)
                if room_ns == loop.now_ns:
                    break
                later_ns = room_ns or self._egress.next_ns() or loop.now_ns
                await asyncio.sleep(max(1, later_ns - loop.now_ns) / NS_PER_S)
            self.links[target].blocked_ns += loop.now_ns - began_ns
        if copy:
            self.links[target].duplicate(frame)
        else:
            self.links[target].accept(frame)
        self._in_flight(target, frame, 1)
        self._egress.offer(loop.now_ns, target, frame.chunk_sizes, frame, frame.beats)
        self._advance_egress()

    @property
    def sequences(self) -> dict[int, int]:
        """As Transport.sequences."""
        return self._egress.sequences

    def go_on(self, sequences: Mapping[int, int]) -> None:
        """As Transport.go_on."""
        self._egress.go_on(sequences)

    def reshape(self, target: int, shape: LinkShape) -> None:
        """As Transport.reshape."""
        self._egress.reshape(target, shape)

    def discard(self, target: int, event: str) -> None:
        """As Transport.discard."""
        self._egress.discard(self._network.loop.now_ns, target, event)
        self._advance_egress()

    def reset(self, target: int) -> None:
        """As Transport.reset; here what has left arrives, and nothing has to come back."""
        raise NotImplementedError("the simulator has no connections that could be broken")

    async def close(self) -> None:
        """Nothing to flush: what was accepted is on its way."""

    def abort(self) -> None:
        """Drop what has not left yet, and everything that arrives from now on."""
        self.alive = False
        self._died_ns = self._network.loop.now_ns
        for wake in (self._egress_wake, self._ingress_wake):
            if wake is not None:
                wake.cancel()

    def _in_flight(self, target: int, frame: Frame, messages: int) -> None:
        """A frame is on its way, or no longer."""
        counters = self.links[target]
        if counters.in_flight_messages is not None:
            counters.in_flight_messages += messages
            counters.in_flight_bytes += messages * frame.size_bytes

    def _advance_egress(self) -> None:
        loop = self._network.loop
        if not self.alive:
            return
        for departure in self._egress.advance(loop.now_ns):
            if departure.last or self._network.nodes[departure.target]._ingress.limited:
                loop.at_ns(departure.due_ns, self._due, departure)
        self._egress_wake = self._rearm(
            self._egress_wake, self._egress.next_ns(), self._advance_egress
        )

    def _due(self, departure: Departure[Frame]) -> None:
        """A chunk has reached the other end."""
        counters = self.links[departure.target]
        if not self.alive and departure.end_ns > self._died_ns:
            return
        if departure.message.lost_by is not None:
            if departure.last:
                self._in_flight(departure.target, departure.item, -1)
                counters.lose(departure.item, departure.message.lost_by)
            return
        receiver = self._network.nodes[departure.target]
        if not receiver._ingress.limited:
            self._network.deliver(self._node, departure.target, departure.item)
            return
        arrival = _Arrival(self._node, departure.item, departure.last)
        now_ns = self._network.loop.now_ns
        receiver._ingress.arrive(now_ns, self._node, departure.size_bytes, arrival)
        receiver._advance_ingress()

    def _advance_ingress(self) -> None:
        loop = self._network.loop
        for arrival, done_ns in self._ingress.advance(loop.now_ns):
            if arrival.last:
                deliver = self._network.deliver
                loop.at_ns(done_ns, deliver, arrival.source, self._node, arrival.frame)
        self._ingress_wake = self._rearm(
            self._ingress_wake, self._ingress.next_ns(), self._advance_ingress
        )

    def _rearm(
        self, wake: asyncio.TimerHandle | None, next_ns: int | None, callback: Callable[[], None]
    ) -> asyncio.TimerHandle | None:
        if wake is not None:
            wake.cancel()
        return None if next_ns is None else self._network.loop.at_ns(next_ns, callback)
