"""The receiving end of a node's links over MPI. Lives in the MPI thread; its card does not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

from tidings.errors import TruncatedFrame, WireError
from tidings.transports.endpoint import Endpoint
from tidings.transports.identity import Identity
from tidings.transports.in_links import BACKLOG_BYTES, Deliver, InLinks
from tidings.transports.mpi_thread import MpiThread
from tidings.wire import blocks
from tidings.wire.reader import FrameReader

#: Message tags. A frame's tag also says where its first section begins, modulo the alignment.
HELLO, WELCOME, PING, PONG, CLOSE, CHUNK, FRAME = 1, 2, 3, 4, 5, 6, 64
ALIGNMENT = 64
_MAX_WORDS_BYTES = 1024
_WORDS = frozenset({HELLO, WELCOME, PING, PONG, CLOSE})


def address_of(rank: int) -> str:
    """A rank as a data address."""
    return f"mpi:{rank}"


def rank_of(address: str) -> int:
    """The rank in a data address; ValueError for another one."""
    scheme, _, rank = address.partition(":")
    if scheme != "mpi" or not rank.isdecimal():
        raise ValueError(f"'{address}' is no rank of an MPI job")
    return int(rank)


def hello(identity: Identity) -> bytes:
    """What a link is opened with."""
    words = {"run": identity.run, "node": identity.node, "digest": identity.digest.hex()}
    return json.dumps(words).encode()


class MpiInLinks(InLinks):
    """Answers the in-neighbours, and takes what they send; nobody else gets a byte in."""

    def __init__(self, end: Endpoint, deliver: Deliver, world: MpiThread, first_rank: int) -> None:
        super().__init__(end, deliver)
        self._world = world
        self._io = end.io
        #: of node 0
        self._first_rank = first_rank
        #: node by rank, of those that have said hello
        self._admitted: dict[int, int] = {}
        self._readers: dict[int, FrameReader] = {}
        #: ends of outgoing links: (rank, what they wait for) -> what to do with it
        self._waiting: dict[tuple[int, int], Callable[[bytes], None]] = {}
        self._gone: dict[int, Callable[[], None]] = {}

    async def listen(self, host: str) -> str:
        """Take messages from now on; ``host`` is MPI's business."""
        self._world.attach(self)
        return address_of(self._world.rank)

    async def close(self, grace_s: float = 0.2) -> None:
        """Tell the in-neighbours, and throw away what they send from now on."""
        words = self._identity.run.encode()
        for rank in list(self._admitted):
            self._world.send(rank, CLOSE, words)
        self._admitted.clear()
        self._waiting.clear()
        self._gone.clear()

    # -- for outgoing links, in the I/O thread ---------------------------------------------------

    def answer(self, rank: int, tag: int) -> asyncio.Future[bytes]:
        """The next answer of that kind from that rank."""
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def settle(words: bytes) -> None:
            if not future.done():
                future.set_result(words)

        self._waiting[rank, tag] = lambda words: self._io.post(settle, words)
        return future

    def on_gone(self, rank: int, callback: Callable[[], None]) -> None:
        """Call that in the I/O thread when the rank accepts no more, or has died."""
        self._gone[rank] = lambda: self._io.post(callback)

    # -- in the MPI thread -------------------------------------------------------------------------

    def held(self) -> set[int]:
        """As Receiver.held: while too much from there waits for the network card."""
        if not self._ingress.limited:
            return set()
        return {
            rank
            for rank, source in self._admitted.items()
            if self._backlog_bytes[source] > BACKLOG_BYTES
        }

    def take(self, rank: int, tag: int, size_bytes: int) -> memoryview | None:
        """As Receiver.take; allocates nothing before sender and size are known to be right."""
        if tag in _WORDS:
            if size_bytes > _MAX_WORDS_BYTES:
                self.refused["oversized"] += 1
                return None
            return memoryview(bytearray(size_bytes))
        if rank not in self._admitted:
            self.refused["not_admitted"] += 1
            return None
        if tag < CHUNK:
            self.refused["malformed"] += 1
            return None
        try:
            self._check_length(size_bytes - 4)
        except WireError as error:
            # a short piece of a stream is none of the codec's lengths
            if tag != CHUNK or not isinstance(error, TruncatedFrame):
                self._refuse(rank, error)
                return None
        block = blocks.take(size_bytes + ALIGNMENT)
        start = -(block.ctypes.data + tag - FRAME) % ALIGNMENT if tag >= FRAME else 0
        return block.data[start : start + size_bytes]

    def arrived(self, rank: int, tag: int, data: memoryview) -> None:
        """As Receiver.arrived."""
        if tag == HELLO:
            self._world.send(rank, WELCOME, self._greet(rank, bytes(data)).encode())
        elif tag == PING:
            self._world.send(rank, PONG, bytes(data))
        elif tag in (WELCOME, PONG):
            settle = self._waiting.pop((rank, tag), None)
            if settle is not None:
                settle(bytes(data))
        elif tag == CLOSE:
            if bytes(data) == self._identity.run.encode():
                self.failed(rank)
        elif rank in self._admitted:
            self._frames(rank, tag, data)

    def failed(self, rank: int) -> None:
        """As Receiver.failed: nothing that is sent there can arrive any more."""
        callback = self._gone.pop(rank, None)
        if callback is not None:
            callback()

    def _greet(self, rank: int, words: bytes) -> str:
        """Let a link in, or say why not."""
        refusal = self._refusal_of(rank, words)
        if refusal:
            self.refused["not_admitted"] += 1
            return refusal
        source = rank - self._first_rank
        self._admitted[rank] = source
        self._readers[rank] = FrameReader(self._check_length)
        self.connected.add(source)
        return ""

    def _refusal_of(self, rank: int, words: bytes) -> str | None:
        try:
            said = json.loads(words)
            run, node = str(said["run"]), int(said["node"])
            digest = bytes.fromhex(said["digest"])
        except (ValueError, KeyError, TypeError):
            return "that is no hello"
        if node != rank - self._first_rank:
            return f"rank {rank} is not node {node}"
        return self._refusal(run, digest, node)

    def _frames(self, rank: int, tag: int, data: memoryview) -> None:
        source, reader = self._admitted[rank], self._readers[rank]
        try:
            if tag == CHUNK:
                frames = reader.feed(data)
            elif reader.inside_frame:
                raise TruncatedFrame("a frame began inside another one")
            else:
                frames = [data]
        except WireError as error:
            self._refuse(rank, error)
            return
        if self._ingress.limited:
            self._io.post(self._arrive, source, len(data), frames)
            return
        for frame in frames:
            self._deliver(source, frame)

    def _refuse(self, rank: int, error: WireError) -> None:
        """The link cannot be followed any further; its sender may open it again."""
        self.refused[error.reason] += 1
        self._admitted.pop(rank, None)
        self._world.send(rank, CLOSE, self._identity.run.encode())
