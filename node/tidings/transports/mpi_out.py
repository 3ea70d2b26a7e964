"""The sending end of one directed link over MPI. Lives in the I/O thread."""

from __future__ import annotations

import asyncio
import time

from tidings.transports.io_thread import IoThread
from tidings.transports.mpi_in import (
    ALIGNMENT,
    CHUNK,
    FRAME,
    HELLO,
    PING,
    PONG,
    WELCOME,
    MpiInLinks,
    hello,
    rank_of,
)
from tidings.transports.mpi_thread import MpiThread
from tidings.transports.out_link import LinkEnd, OutLink
from tidings.wire.frame import PREFIX, Buffer, Frame

#: what may be on its way at once; MPI needs the next message early to keep the line busy
_WINDOW_BYTES = 48 << 20
#: the same, of frames from the node's own thread: few, so that their memory stays in caches
_STRAIGHT_WINDOW_BYTES, _STRAIGHT_FRAMES = 8 << 20, 3
#: smaller frames go through the I/O thread, which sends several as one message
_STRAIGHT_BYTES = 64 << 10


class MpiOutLink(OutLink):
    """Sends a whole frame as one message where it can, pieces of the link's stream otherwise.

    A rank that has died does not come back, so a link that is cut stays cut.
    """

    def __init__(self, end: LinkEnd, world: MpiThread, io: IoThread, incoming: MpiInLinks) -> None:
        super().__init__(end)
        self._world = world
        self._io = io
        self._incoming = incoming
        self._rank = rank_of(end.address)
        self._open = False
        #: handed to MPI; only counted up, by whoever writes
        self._sent_bytes = 0
        #: of those, what MPI has done with; only counted up, in the MPI thread
        self._landed_bytes = 0
        self._landed = asyncio.Event()
        #: whether anybody waits for that; waking the I/O thread for nothing costs much
        self._awaited = False
        #: the node waits until less than that is on its way; nothing is less than -1
        self._room_below_bytes = -1

    @property
    def connected(self) -> bool:
        """Whether the peer has let this link in and is still there."""
        return self._open

    async def connect(self, timeout_s: float) -> None:
        """Introduce this node and begin to write; raises ValueError where it is not let in."""
        if self._rank >= self._world.size:
            raise ValueError(f"rank {self._rank} is not among the {self._world.size} of this job")
        answer = self._incoming.answer(self._rank, WELCOME)
        self._world.send(self._rank, HELLO, hello(self._identity))
        async with asyncio.timeout(timeout_s):
            refusal = await answer
        if refusal:
            raise ValueError(refusal.decode())
        self._open = True
        self._incoming.on_gone(self._rank, self._lost)
        self._begin()

    async def round_trip_s(self, timeout_s: float) -> float:
        """As OutLink.round_trip_s; raises TimeoutError."""
        answer = self._incoming.answer(self._rank, PONG)
        began = time.perf_counter()
        self._world.send(self._rank, PING, b"ping")
        async with asyncio.timeout(timeout_s):
            await answer
        return time.perf_counter() - began

    async def write(self, pieces: list[Buffer], whole: bool) -> bool:
        """As OutLink.write; waits while too much is on its way."""
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        await self._until_flying(_WINDOW_BYTES - len(data))
        if not self._open:
            return False
        self._send(data, whole)
        return True

    def write_now(self, frame: Frame) -> bool | None:
        """As OutLink.write_now, for a long frame, where the link is open."""
        size_bytes = frame.size_bytes
        if not self._open or size_bytes < _STRAIGHT_BYTES or len(frame.chunks) > 1:
            return False
        most_bytes = max(_STRAIGHT_WINDOW_BYTES, _STRAIGHT_FRAMES * size_bytes)
        # looked at after saying so, as below
        self._room_below_bytes = most_bytes // 2
        if self._sent_bytes - self._landed_bytes + size_bytes > most_bytes:
            return None
        self._room_below_bytes = -1
        self._send(frame.chunks[0], whole=True)
        return True

    def _send(self, data: Buffer, whole: bool) -> None:
        size_bytes, tag = len(data), CHUNK
        if whole:
            _, header_length = PREFIX.unpack_from(data)
            tag = FRAME + (PREFIX.size + header_length) % ALIGNMENT
        self._sent_bytes += size_bytes
        self._world.send(self._rank, tag, data, lambda well: self._land(size_bytes, well))

    async def flush(self) -> None:
        """Until everything taken over has been sent or lost."""
        await super().flush()
        await self._until_flying(0)

    async def abort(self) -> None:
        """Send nothing more."""
        self._open = False
        self._written(self._peer, 0)
        self._end()

    async def close(self, timeout_s: float) -> None:
        """Send what is left, if the peer takes it in time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self.flush()
        except TimeoutError:
            pass
        await self.abort()

    async def _until_flying(self, most_bytes: int) -> None:
        """Until at most so much is on its way, or nothing at all, or the link is cut."""
        while self._open:
            self._landed.clear()
            self._awaited = True
            # looked at after saying so: what lands from now on wakes this up
            if self._sent_bytes - self._landed_bytes <= max(0, most_bytes):
                break
            await self._landed.wait()

    def _land(self, size_bytes: int, well: bool) -> None:
        """A message has gone out, or could not; in the MPI thread."""
        self._landed_bytes += size_bytes
        if self._sent_bytes - self._landed_bytes <= self._room_below_bytes:
            self._room_below_bytes = -1
            self._written(self._peer, 0)
        if not well:
            self._io.post(self._lost)
        elif self._awaited:
            self._awaited = False
            self._io.post(self._landed.set)

    def _lost(self) -> None:
        if self._open:
            self._open = False
            self._landed.set()
            self._written(self._peer, 0)
            self._cut()
