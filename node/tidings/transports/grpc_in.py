"""The receiving end of a node's links over gRPC. Lives in the I/O thread."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable

import grpc
from grpc import aio

from tidings.errors import WireError
from tidings.links.model import Ingress
from tidings.transports.grpc_service import (
    DIGEST_KEY,
    OPTIONS,
    RUN_KEY,
    SOURCE_KEY,
    Identity,
    peer_handlers,
)
from tidings.transports.io_thread import WallClock
from tidings.v1 import data_pb2 as pb
from tidings.wire.reader import FrameReader

#: what may wait for the network card from one link before its stream is no longer read
_BACKLOG_BYTES = 16 << 20

Frames = list[memoryview]


class InLinks:
    """The server that a node's in-neighbours connect to.

    ``deliver(source, frame)`` is called in the I/O thread with each whole frame, in the order of
    its link, after the node's network card has let it through.
    """

    def __init__(
        self,
        identity: Identity,
        sources: frozenset[int],
        check_length: Callable[[int], int],
        deliver: Callable[[int, memoryview], None],
        clock: WallClock,
        nic_bit_per_s: float,
        quantum_bytes: int,
    ) -> None:
        self._identity = identity
        self._sources = sources
        self._check_length = check_length
        self._deliver = deliver
        self._clock = clock
        self._nic_bit_per_s = nic_bit_per_s
        self._quantum_bytes = quantum_bytes
        self._ingress: Ingress[tuple[int, Frames, int]]
        self._wake: asyncio.TimerHandle | None = None
        self._backlog_bytes: Counter[int] = Counter()
        self._drained = asyncio.Event()
        self._server: aio.Server | None = None
        #: what was refused here, by reason
        self.refused: Counter[str] = Counter()
        self.connected: set[int] = set()
        self.reset()

    def reset(self) -> None:
        """Forget the past of the network card: time starts again at zero."""
        self._ingress = Ingress(self._nic_bit_per_s, self._quantum_bytes)

    async def listen(self, host: str) -> str:
        """Start serving on a free port of ``host``; the address to connect to."""
        self._server = aio.server(options=OPTIONS)
        self._server.add_generic_rpc_handlers((peer_handlers(self._link, self._ping),))
        port = self._server.add_insecure_port(f"{host}:0")
        if port == 0:
            raise OSError(f"cannot listen on {host}")
        await self._server.start()
        return f"{host}:{port}"

    async def close(self, grace_s: float = 0.2) -> None:
        """Stop serving; streams that are still open get that long to end."""
        if self._server is not None:
            await self._server.stop(grace_s)

    async def _ping(
        self, request: pb.PingRequest, context: aio.ServicerContext[pb.PingRequest, pb.PingReply]
    ) -> pb.PingReply:
        refusal = self._refusal(request.run, request.digest, request.source)
        if refusal is not None:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, refusal)
        return pb.PingReply(node=self._identity.node)

    async def _link(
        self, chunks: AsyncIterator[bytes], context: aio.ServicerContext[bytes, bytes]
    ) -> bytes:
        source = await self._admit(context)
        await context.send_initial_metadata(())
        self.connected.add(source)
        reader = FrameReader(self._check_length)
        frames = refused = 0
        try:
            async for chunk in chunks:
                whole = reader.feed(chunk)
                frames += len(whole)
                if self._ingress.limited:
                    await self._pass_card(source, len(chunk), whole)
                else:
                    for frame in whole:
                        self._deliver(source, frame)
            reader.close()
        except WireError as error:
            # the stream cannot be followed any further; the sender may open another one
            self.refused[error.reason] += 1
            refused += 1
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        finally:
            if reader.inside_frame and not refused:
                self.refused["truncated"] += 1
        return pb.LinkClosed(frames=frames, refused=refused).SerializeToString()

    async def _admit(self, context: aio.ServicerContext[bytes, bytes]) -> int:
        """The peer's number; aborts the call of one that has no link to here."""
        offered = dict(context.invocation_metadata() or ())
        run, digest = str(offered.get(RUN_KEY, "")), offered.get(DIGEST_KEY, b"")
        text = str(offered.get(SOURCE_KEY, ""))
        source = int(text) if text.isdecimal() else -1
        refusal = self._refusal(run, digest if isinstance(digest, bytes) else b"", source)
        if refusal is not None:
            self.refused["not_admitted"] += 1
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, refusal)
        return source

    def _refusal(self, run: str, digest: bytes, source: int) -> str | None:
        """Why a peer is not let in, or None."""
        refusal = self._identity.refusal(run, digest)
        if refusal is None and source not in self._sources:
            refusal = f"node {source} is not an in-neighbour of {self._identity.node}"
        return refusal

    # -- the network card ----------------------------------------------------------------------

    async def _pass_card(self, source: int, size_bytes: int, frames: Frames) -> None:
        """Queue a chunk for the card; waits while too much of this link waits already."""
        self._ingress.arrive(self._clock.now_ns, source, size_bytes, (source, frames, size_bytes))
        self._backlog_bytes[source] += size_bytes
        self._advance()
        while self._backlog_bytes[source] > _BACKLOG_BYTES:
            self._drained.clear()
            await self._drained.wait()

    def _advance(self) -> None:
        loop = asyncio.get_running_loop()
        for (source, frames, size_bytes), done_ns in self._ingress.advance(self._clock.now_ns):
            loop.call_at(self._clock.loop_time(done_ns), self._through, source, frames, size_bytes)
        if self._wake is not None:
            self._wake.cancel()
        next_ns = self._ingress.next_ns()
        if next_ns is not None:
            self._wake = loop.call_at(self._clock.loop_time(next_ns), self._advance)

    def _through(self, source: int, frames: Frames, size_bytes: int) -> None:
        for frame in frames:
            self._deliver(source, frame)
        self._backlog_bytes[source] -= size_bytes
        self._drained.set()
