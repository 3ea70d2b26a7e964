"""The sending end of one directed link, whatever carries its bytes. Lives in the I/O thread."""

from __future__ import annotations

import asyncio
import statistics
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from tidings.links.model import Departure
from tidings.links.shape import LinkShape
from tidings.transports.base import LinkCounters
from tidings.transports.identity import Identity
from tidings.transports.io_thread import WallClock
from tidings.wire.frame import Buffer, Frame

#: small frames that are due together are written together up to this size, or a chunk's
_COALESCE_BYTES = 256 << 10
_LEAD_PINGS, _LEAD_IDLE_S = 5, 0.02


@dataclass(frozen=True)
class LinkEnd:
    """What the sending end of a link is given by its transport."""

    peer: int
    address: str
    identity: Identity
    clock: WallClock
    counters: LinkCounters
    #: called with (peer, bytes) when bytes have left the queue
    written: Callable[[int, int], None]
    #: called with (peer, True) when the peer is suspected dead, (peer, False) when it is back
    suspect: Callable[[int, bool], None]
    shape: LinkShape
    #: whether lateness against the model is worth counting
    shaped: bool
    chunk_bytes: int


class OutLink(ABC):
    """Writes departures to one peer, each so that it arrives when it is due.

    What the real way takes counts towards the link's delay, once it has been calibrated.
    While there is no connection, what comes due is lost and counted: the link goes on in model
    time, it never blocks. After a cut it continues at the next whole frame.
    """

    def __init__(self, end: LinkEnd) -> None:
        self._peer = end.peer
        self._identity = end.identity
        self._clock = end.clock
        self._counters = end.counters
        self._written = end.written
        self._suspect = end.suspect
        self._delay_ns = end.shape.delay_ns
        self._shaped = end.shaped
        # where the kernel shapes, what is written together also arrives together
        self._coalesce_bytes = min(_COALESCE_BYTES, end.chunk_bytes)
        #: what the real way takes, and how much before they are due chunks are written
        self._way_ns = self._lead_ns = 0
        #: what loses the message that is being sent, if anything does
        self._losing: str | None = None
        self._queue: deque[Departure[Frame]] = deque()
        self._filled = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        #: the rest of a frame whose beginning was lost must not be sent
        self._skipping = False
        self._tasks: set[asyncio.Task[None]] = set()

    # -- what carries the bytes --------------------------------------------------------------------

    @property
    @abstractmethod
    def connected(self) -> bool:
        """Whether what is written now can arrive."""

    @abstractmethod
    async def connect(self, timeout_s: float) -> None:
        """Find the peer, agree with it, open the link; raises what says why that failed."""

    def connect_later(self) -> None:
        """The peer does not answer: take messages all the same, and go on trying."""
        return

    def redirect(self, address: str) -> None:
        """The peer has been started again, and is at another address."""
        raise NotImplementedError("over this transport a node cannot come back")

    @abstractmethod
    async def round_trip_s(self, timeout_s: float) -> float:
        """What a small message there and back takes; raises where the peer does not answer."""

    @abstractmethod
    async def write(self, pieces: list[Buffer], whole: bool) -> bool:
        """Write consecutive bytes of the link; False if the connection broke.

        ``whole``: they are one piece, and that is exactly one frame.
        """

    def write_now(self, frame: Frame) -> bool | None:
        """Write a frame from the node's own thread; False: it is to go the usual way.

        None: the line is full; ``written(peer, 0)`` is called when there is room. Called while
        nothing is ahead of it, so nobody writes in the I/O thread meanwhile.
        """
        return False

    @abstractmethod
    async def abort(self) -> None:
        """Break the link off; what is on its way may be lost."""

    @abstractmethod
    async def close(self, timeout_s: float) -> None:
        """End the link; what was written is delivered first."""

    # -- pacing --------------------------------------------------------------------------------

    async def calibrate(self, timeout_s: float) -> None:
        """Find out what the real way takes, so that it counts towards the delay asked for.

        To be done while the machine is quiet; raises where the peer does not answer.
        """
        if self._delay_ns == 0:
            return
        trips_s = []
        for _ in range(_LEAD_PINGS):
            # as messages come: after a while in which both ends were idle
            await asyncio.sleep(min(_LEAD_IDLE_S, self._delay_ns / 1e9))
            trips_s.append(await self.round_trip_s(timeout_s))
        self._way_ns = round(statistics.median(trips_s) / 2 * 1e9 / self._clock.time_scale)
        self._lead_ns = min(self._way_ns, self._delay_ns)

    def depart(self, departure: Departure[Frame]) -> None:
        """Take over a chunk whose way is settled."""
        self._queue.append(departure)
        self._idle.clear()
        self._filled.set()

    def reshape(self, shape: LinkShape) -> None:
        """The link is another one from now on; what the real way takes still counts towards it."""
        self._delay_ns = shape.delay_ns
        self._lead_ns = min(self._way_ns, self._delay_ns)

    async def flush(self) -> None:
        """Until everything taken over has been written or lost."""
        await self._idle.wait()

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
        pieces: list[Buffer] = []
        size_bytes = taken_bytes = 0
        frames: list[Frame] = []
        while self._queue and (self._queue[0].lost or self._queue[0].due_ns <= now_ns):
            departure = self._queue[0]
            if size_bytes and size_bytes + departure.size_bytes > self._coalesce_bytes:
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
        whole = len(pieces) == len(frames) == 1 and len(frames[0].chunks) == 1
        if pieces and not await self.write(pieces, whole):
            for frame in frames:
                self._count_undeliverable(frame)
        self._written(self._peer, taken_bytes)

    def _passes(self, departure: Departure[Frame]) -> bool:
        """Whether a chunk is to be written; counts the messages that are not."""
        if departure.number == 0:
            # of a message that has begun to leave the rest follows
            self._losing = departure.message.lost_by
        if self._losing is not None:
            if departure.last:
                self._counters.lose(departure.item, self._losing)
            return False
        if departure.number == 0 and self.connected:
            self._skipping = False
        if not self.connected or self._skipping:
            if departure.last:
                self._count_undeliverable(departure.item)
            return False
        return True

    def _count_undeliverable(self, frame: Frame) -> None:
        self._counters.undeliverable_messages += 1
        self._counters.undeliverable_bytes += frame.size_bytes

    def _begin(self) -> None:
        """Write from now on."""
        self._spawn(self._write())

    def _cut(self) -> None:
        """The connection has broken, in the middle of a frame for all we know."""
        self._skipping = True
        self._suspect(self._peer, True)

    def _end(self) -> None:
        """Write nothing more."""
        for task in self._tasks:
            task.cancel()

    def _spawn(self, work: object) -> None:
        task = asyncio.ensure_future(work)  # type: ignore[call-overload]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
