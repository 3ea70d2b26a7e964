"""Links between processes, paced in a thread of their own, whatever carries their bytes.

A send settles the message's way through the link model at once, in the caller's thread; the I/O
thread writes its chunks when they are due. Nothing of it waits for training, and training does not
wait for it, except where a link's queue is full.
"""

from __future__ import annotations

import asyncio
import math
import threading
from abc import abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import replace

from tidings.links.model import Egress
from tidings.links.shape import LinkShape
from tidings.transports.base import LinkCounters, NetworkTransport
from tidings.transports.endpoint import Endpoint
from tidings.transports.in_links import InLinks
from tidings.transports.out_link import LinkEnd, OutLink
from tidings.wire.frame import Frame

_CALIBRATE_S = 10.0


class PacedTransport(NetworkTransport):
    """One node's links. Made, and its methods called, in the node's own loop."""

    def __init__(self, end: Endpoint) -> None:
        self._end = end
        self._shapes = dict(end.links)
        self._clock = end.clock
        self._io = end.io
        self._home = asyncio.get_running_loop()
        #: guards the egress model, which both threads drive
        self._lock = threading.Lock()
        # until the start links are measured, and a probe that is lost measures nothing
        self._egress = self._fresh_egress(lossless=True)
        self._out: dict[int, OutLink] = {}
        self._in = self._incoming()
        self._pump_posted = False
        self._pump_timer: asyncio.TimerHandle | None = None
        self._inbound: deque[tuple[int, memoryview]] = deque()
        self._drain_posted = False
        #: accepted and not yet written, by link; bounds memory where the other end is too slow
        self._backlog_bytes: Counter[int] = Counter()
        self._room = {target: asyncio.Event() for target in end.links}
        self._order = {target: asyncio.Lock() for target in end.links}
        self._ended = False
        self.links = {target: LinkCounters() for target in end.links}

    @abstractmethod
    def _incoming(self) -> InLinks:
        """The receiving end of all links."""

    @abstractmethod
    def _outgoing(self, end: LinkEnd) -> OutLink:
        """The sending end of one link, not connected yet; called in the I/O thread."""

    @property
    def refused(self) -> Counter[str]:
        """What the receiving end refused before it was a frame, by reason."""
        return self._in.refused

    @property
    def connected_sources(self) -> set[int]:
        """The in-neighbours that have opened their link."""
        return set(self._in.connected)

    # -- life ----------------------------------------------------------------------------------

    async def listen(self, host: str) -> str:
        """Accept links on a free port; returns the address."""
        return await self._io.run(self._in.listen(host))

    async def connect(self, addresses: Mapping[int, str], timeout_s: float) -> dict[int, str]:
        """Open all outgoing links at once; the ones that failed, with the reason.

        Those go on trying.
        """
        return await self._io.run(self._connect(addresses, timeout_s))

    async def _connect(self, addresses: Mapping[int, str], timeout_s: float) -> dict[int, str]:
        failures: dict[int, str] = {}

        async def one(target: int) -> None:
            shape = self._shapes[target]
            link = self._outgoing(
                LinkEnd(
                    target,
                    addresses[target],
                    self._end.identity,
                    self._clock,
                    self.links[target],
                    self._count_written,
                    self._post_suspect,
                    shape,
                    shape.shaped or math.isfinite(self._end.nic.egress_bit_per_s),
                    self._end.quantum_bytes,
                )
            )
            self._out[target] = link
            try:
                await link.connect(timeout_s)
            except TimeoutError:
                failures[target] = f"no answer from {addresses[target]} in {timeout_s:g} s"
            except Exception as error:
                details = getattr(error, "details", None)
                failures[target] = (details() if callable(details) else None) or str(error)
            if target in failures:
                link.connect_later()

        await asyncio.gather(*(one(target) for target in self._shapes))
        return failures

    def redirect(self, addresses: Mapping[int, str]) -> None:
        """As NetworkTransport.redirect."""
        for target, address in addresses.items():
            if target in self._out:
                self._io.post(self._out[target].redirect, address)

    async def calibrate(self) -> None:
        """Measure what the real way to each target takes; it counts towards the delay asked for."""
        await self._io.run(self._calibrate())

    async def _calibrate(self) -> None:
        for link in self._out.values():
            await link.calibrate(_CALIBRATE_S)

    def restart(self) -> None:
        """Start model and counters from zero, with the clock: the measuring is over."""
        with self._lock:
            self._egress = self._fresh_egress(lossless=False)
        self._io.post(self._in.reset)
        for counters in self.links.values():
            counters.reset()

    async def flush(self) -> None:
        """Until everything that was accepted has been written or lost."""
        await self._io.run(self._flush())

    async def close(self) -> None:
        """Send what was accepted, then end all links; nothing where that was done already."""
        if not self._ended:
            self._ended = True
            await self._io.run(self._close())

    async def _flush(self) -> None:
        while (next_ns := self._next_ns()) is not None:
            delay_s = self._clock.loop_time(next_ns) - self._io.loop.time()
            await asyncio.sleep(max(0.001, delay_s))
        await asyncio.gather(*(link.flush() for link in self._out.values()))

    async def _close(self) -> None:
        await asyncio.gather(*(link.close(timeout_s=2.0) for link in self._out.values()))
        await self._in.close()

    def abort(self) -> None:
        """Write nothing more."""
        self._ended = True
        self._io.submit(self._abort())

    async def _abort(self) -> None:
        await asyncio.gather(*(link.abort() for link in self._out.values()))
        await self._in.close(grace_s=0.0)

    @property
    def sequences(self) -> dict[int, int]:
        """As Transport.sequences."""
        with self._lock:
            return self._egress.sequences

    def go_on(self, sequences: Mapping[int, int]) -> None:
        """As Transport.go_on."""
        with self._lock:
            self._egress.go_on(sequences)

    # -- sending ---------------------------------------------------------------------------------

    async def send(self, target: int, frame: Frame, copy: bool = False) -> None:
        """As Transport.send."""
        async with self._order[target]:
            while not (straight := self._send_now(target, frame)):
                # None: the line is full, but free of shapes
                wait_s = 0.0 if straight is None else self._offer(target, frame)
                if wait_s is None:
                    break
                began_ns = self._clock.now_ns
                if wait_s > 0:
                    await asyncio.sleep(wait_s)
                else:
                    await self._room[target].wait()
                self.links[target].blocked_ns += self._clock.now_ns - began_ns
        if copy:
            self.links[target].duplicate(frame)
        else:
            self.links[target].accept(frame)
        if not straight and not self._pump_posted:
            self._pump_posted = True
            self._io.post(self._pump)

    def reshape(self, target: int, shape: LinkShape) -> None:
        """As Transport.reshape."""
        with self._lock:
            self._shapes[target] = shape
            self._egress.reshape(target, shape)
        self._io.post(self._out[target].reshape, shape)

    def discard(self, target: int, event: str) -> None:
        """As Transport.discard."""
        with self._lock:
            self._egress.discard(self._clock.now_ns, target, event)

    def reset(self, target: int) -> None:
        """As Transport.reset."""
        raise NotImplementedError("this transport has no connections that could be broken")

    def _send_now(self, target: int, frame: Frame) -> bool | None:
        """Write it without the I/O thread; only where the model has nothing to hold it up for.

        None: once there is room again.
        """
        free = not self._shapes[target].shaped and math.isinf(self._end.nic.egress_bit_per_s)
        with self._lock:
            if not free or self._backlog_bytes[target] or target not in self._out:
                return False
            written = self._out[target].write_now(frame)
            if written is None:
                # looked at by who makes room, with the same lock
                self._room[target].clear()
            elif written:
                self._egress.skip(target)
        return written

    def _offer(self, target: int, frame: Frame) -> float | None:
        """Offer the frame to the model: None if taken, else seconds to wait (0: for room)."""
        size_bytes = frame.size_bytes
        with self._lock:
            now_ns = self._clock.now_ns
            backlog = self._backlog_bytes[target]
            if backlog and backlog + size_bytes > self._backlog_limit(target):
                self._room[target].clear()
                return 0.0
            room_ns = self._egress.room_ns(now_ns, target, size_bytes)
            if room_ns == now_ns:
                self._egress.offer(now_ns, target, frame.chunk_sizes, frame, frame.beats)
                self._backlog_bytes[target] += size_bytes
                return None
            later_ns = room_ns or self._egress.next_ns() or now_ns
        return max(1e-4, (later_ns - now_ns) * self._clock.time_scale / 1e9)

    def _backlog_limit(self, target: int) -> float:
        shape = self._shapes[target]
        flying = shape.rate_bit_per_s / 8 * (shape.delay_ns + shape.jitter_ns) / 1e9
        return 2 * shape.queue_bytes + (flying if math.isfinite(flying) else 0)

    def _fresh_egress(self, lossless: bool) -> Egress[Frame]:
        shapes = self._shapes
        if lossless:
            shapes = {target: replace(shape, loss=0.0) for target, shape in shapes.items()}
        return Egress(
            self._end.identity.node,
            self._end.seed,
            shapes,
            self._end.nic.egress_bit_per_s,
            self._end.quantum_bytes,
        )

    # -- in the I/O thread -------------------------------------------------------------------------

    def _next_ns(self) -> int | None:
        with self._lock:
            return self._egress.next_ns()

    def _pump(self) -> None:
        """Hand what the model has settled to the links, and come back when it will settle more."""
        self._pump_posted = False
        with self._lock:
            departures = list(self._egress.advance(self._clock.now_ns))
            next_ns = self._egress.next_ns()
        for departure in departures:
            self._out[departure.target].depart(departure)
        if self._pump_timer is not None:
            self._pump_timer.cancel()
            self._pump_timer = None
        if next_ns is not None:
            when = self._clock.loop_time(next_ns)
            self._pump_timer = self._io.loop.call_at(when, self._pump)

    def _count_written(self, target: int, size_bytes: int) -> None:
        with self._lock:
            self._backlog_bytes[target] -= size_bytes
            waiting = not self._room[target].is_set()
        if waiting:
            self._call_home(self._room[target].set)

    def _post_suspect(self, peer: int, dead: bool) -> None:
        self._call_home(self.suspect, peer, dead)

    def _arrived(self, source: int, frame: memoryview) -> None:
        self._inbound.append((source, frame))
        if not self._drain_posted:
            self._drain_posted = True
            self._call_home(self._drain)

    def _call_home(self, callback: Callable[..., object], *args: object) -> None:
        if not self._home.is_closed():
            self._home.call_soon_threadsafe(callback, *args)

    # -- back in the node's loop -------------------------------------------------------------------

    def _drain(self) -> None:
        self._drain_posted = False
        while self._inbound:
            self.receive(*self._inbound.popleft())
