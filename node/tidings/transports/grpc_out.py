"""The sending end of one directed link over gRPC. Lives in the I/O thread."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import deque
from collections.abc import Callable

from grpc import aio

from tidings.links.model import Departure
from tidings.links.shape import LinkShape
from tidings.transports.base import LinkCounters
from tidings.transports.credentials import Credentials, connect, node_name
from tidings.transports.grpc_service import (
    MAX_WRITE_BYTES,
    OPTIONS,
    Identity,
    open_link,
    ping,
)
from tidings.transports.io_thread import WallClock
from tidings.wire.frame import Frame

#: real seconds between attempts to come back after a cut
_RETRY_S = (0.2, 0.4, 0.8, 1.6, 2.0)
#: small frames that are due together are written together up to this size
_COALESCE_BYTES = 256 << 10
_LEAD_PINGS, _LEAD_IDLE_S = 5, 0.02

_BROKEN = (aio.AioRpcError, aio.UsageError, asyncio.InvalidStateError)


class OutLink:
    """Writes departures to one peer, each so that it arrives when it is due.

    What the real way takes counts towards the link's delay, once it has been calibrated.
    While there is no connection, what comes due is lost and counted: the link goes on in model
    time, it never blocks. After a cut it reconnects and continues at the next whole frame.
    """

    def __init__(
        self,
        peer: int,
        address: str,
        identity: Identity,
        clock: WallClock,
        counters: LinkCounters,
        written: Callable[[int, int], None],
        suspect: Callable[[int, bool], None],
        shape: LinkShape,
        shaped: bool,
        credentials: Credentials | None = None,
    ) -> None:
        self._peer = peer
        self._identity = identity
        self._clock = clock
        self._counters = counters
        self._written = written
        self._suspect = suspect
        self._delay_ns = shape.delay_ns
        self._shaped = shaped
        #: what the real way takes; chunks are written that much before they are due
        self._lead_ns = 0
        self._channel = connect(address, OPTIONS, credentials, node_name(peer))
        self._call: aio.StreamUnaryCall[bytes, bytes] | None = None
        self._queue: deque[Departure[Frame]] = deque()
        self._filled = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        #: the rest of a frame whose beginning was lost must not be sent
        self._skipping = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def connect(self, timeout_s: float) -> None:
        """Find the peer, agree with it, open the stream; raises AioRpcError or ValueError."""
        async with asyncio.timeout(timeout_s):
            reply = await ping(self._channel, self._identity, timeout_s)
            if reply.node != self._peer:
                raise ValueError(f"expected node {self._peer}, found node {reply.node}")
            await self._open()
        self._spawn(self._write())

    async def calibrate(self, timeout_s: float) -> None:
        """Find out what the real way takes, so that it counts towards the delay asked for.

        To be done while the machine is quiet; raises AioRpcError where the peer does not answer.
        """
        if self._delay_ns == 0:
            return
        trips_s = []
        for _ in range(_LEAD_PINGS):
            # as messages come: after a while in which both ends were idle
            await asyncio.sleep(min(_LEAD_IDLE_S, self._delay_ns / 1e9))
            began = time.perf_counter()
            await ping(self._channel, self._identity, timeout_s)
            trips_s.append(time.perf_counter() - began)
        one_way_ns = round(statistics.median(trips_s) / 2 * 1e9 / self._clock.time_scale)
        self._lead_ns = min(one_way_ns, self._delay_ns)

    def depart(self, departure: Departure[Frame]) -> None:
        """Take over a chunk whose way is settled."""
        self._queue.append(departure)
        self._idle.clear()
        self._filled.set()

    async def flush(self) -> None:
        """Until everything taken over has been written or lost."""
        await self._idle.wait()

    async def abort(self) -> None:
        """Break the stream and the connection off; what is on its way may be lost."""
        for task in self._tasks:
            task.cancel()
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
        await self._channel.close()

    async def close(self, timeout_s: float) -> None:
        """End the stream and the connection; what was written is delivered first."""
        await self.flush()
        for task in self._tasks:
            task.cancel()
        call, self._call = self._call, None
        if call is not None and not call.done():
            try:
                async with asyncio.timeout(timeout_s):
                    await call.done_writing()
                    await call
            except (*_BROKEN, TimeoutError):
                call.cancel()
        await self._channel.close()

    async def _open(self) -> None:
        call = open_link(self._channel, self._identity)
        # sent by the peer once it has accepted the link
        await call.initial_metadata()
        if call.done():
            raise await _error_of(call)
        call.add_done_callback(lambda _: self._lost(call))
        self._call = call

    def _lost(self, call: aio.StreamUnaryCall[bytes, bytes]) -> None:
        """The stream has ended, and not by us."""
        if self._call is call:
            self._call = None
            self._skipping = True
            self._suspect(self._peer, True)
            self._spawn(self._reconnect())

    async def _reconnect(self) -> None:
        attempt = 0
        while True:
            await asyncio.sleep(_RETRY_S[min(attempt, len(_RETRY_S) - 1)])
            attempt += 1
            try:
                await self._open()
            except (*_BROKEN, OSError):
                continue
            self._counters.reconnects += 1
            self._suspect(self._peer, False)
            return

    async def _write(self) -> None:
        while True:
            while not self._queue:
                self._idle.set()
                self._filled.clear()
                await self._filled.wait()
            departure = self._queue[0]
            due = self._clock.loop_time(departure.due_ns - self._lead_ns)
            wait_s = due - asyncio.get_running_loop().time()
            if wait_s > 0 and not departure.lost:
                await asyncio.sleep(wait_s)
            await self._send_due()

    async def _send_due(self) -> None:
        """Write what is due, small chunks together."""
        now_ns = self._clock.now_ns + self._lead_ns
        pieces: list[bytes] = []
        size_bytes = taken_bytes = 0
        frames: list[Frame] = []
        while self._queue and (self._queue[0].lost or self._queue[0].due_ns <= now_ns):
            departure = self._queue[0]
            if size_bytes and size_bytes + departure.size_bytes > _COALESCE_BYTES:
                break
            self._queue.popleft()
            taken_bytes += departure.size_bytes
            if self._passes(departure):
                pieces.append(departure.item.chunks[departure.number])
                size_bytes += departure.size_bytes
                if departure.last:
                    frames.append(departure.item)
                if self._shaped:
                    lag_ns = (now_ns - departure.due_ns) * self._clock.time_scale
                    self._counters.lag.add(round(lag_ns))
        if pieces and not await self._try_write(pieces):
            for frame in frames:
                self._count_undeliverable(frame)
        self._written(self._peer, taken_bytes)

    def _passes(self, departure: Departure[Frame]) -> bool:
        """Whether a chunk is to be written; counts the messages that are not."""
        if departure.lost:
            if departure.last:
                self._counters.lost_messages += 1
                self._counters.lost_bytes += departure.item.size_bytes
            return False
        if departure.number == 0 and self._call is not None:
            self._skipping = False
        if self._call is None or self._skipping:
            if departure.last:
                self._count_undeliverable(departure.item)
            return False
        return True

    async def _try_write(self, pieces: list[bytes]) -> bool:
        call = self._call
        if call is None:
            return False
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        try:
            for start in range(0, len(data), MAX_WRITE_BYTES):
                await call.write(data[start : start + MAX_WRITE_BYTES])
        except _BROKEN:
            self._lost(call)
            return False
        return True

    def _count_undeliverable(self, frame: Frame) -> None:
        self._counters.undeliverable_messages += 1
        self._counters.undeliverable_bytes += frame.size_bytes

    def _spawn(self, work: object) -> None:
        task = asyncio.ensure_future(work)  # type: ignore[call-overload]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _error_of(call: aio.StreamUnaryCall[bytes, bytes]) -> aio.AioRpcError:
    return aio.AioRpcError(
        await call.code(), aio.Metadata(), aio.Metadata(), details=await call.details()
    )
