"""The receiving end of a node's links over gRPC. Lives in the I/O thread."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
from grpc import aio

from tidings.errors import WireError
from tidings.transports.grpc_service import (
    DIGEST_KEY,
    OPTIONS,
    RUN_KEY,
    SOURCE_KEY,
    peer_handlers,
)
from tidings.transports.in_links import InLinks, NodeEnd
from tidings.v1 import data_pb2 as pb
from tidings.wire.reader import FrameReader


class GrpcInLinks(InLinks):
    """The server that a node's in-neighbours connect to."""

    def __init__(self, end: NodeEnd) -> None:
        super().__init__(end)
        self._server: aio.Server | None = None

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
                    self._arrive(source, len(chunk), whole)
                    await self._room(source)
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
