"""The receiving end of a node's links over gRPC. Lives in the I/O thread."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator

import grpc
from grpc import aio

from tidings.errors import WireError
from tidings.transports.credentials import Credentials, Gate, guard, node_name
from tidings.transports.endpoint import Endpoint
from tidings.transports.grpc_service import (
    DIGEST_KEY,
    OPTIONS,
    RUN_KEY,
    SOURCE_KEY,
    peer_handlers,
)
from tidings.transports.in_links import Deliver, InLinks
from tidings.v1 import data_pb2 as pb
from tidings.wire.reader import FrameReader

#: streams of one source that are followed at once; after a cut, the last ones may not have ended
_STREAMS_PER_SOURCE = 4


class GrpcInLinks(InLinks):
    """The server that a node's in-neighbours connect to."""

    def __init__(
        self, end: Endpoint, deliver: Deliver, credentials: Credentials | None = None
    ) -> None:
        super().__init__(end, deliver)
        self._server: aio.Server | None = None
        self._gate = Gate(credentials)
        #: by source, oldest first
        self._streams: defaultdict[int, list[asyncio.Task[object]]] = defaultdict(list)
        self._replaced: set[asyncio.Task[object]] = set()

    @property
    def refused(self) -> Counter[str]:
        """What was refused here, by reason; connections that remained strangers included."""
        return Counter(dict(self._refused)) + Counter(unauthenticated=self._gate.strangers)

    async def listen(self, host: str) -> str:
        """Start serving on a free port of ``host``; the address to connect to."""
        self._server = aio.server(options=[*OPTIONS, *guard(len(self._sources))])
        self._server.add_generic_rpc_handlers((peer_handlers(self._link, self._ping),))
        port = self._gate.bind(self._server, f"{host}:0")
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
        if not self._gate.proves(context, node_name(request.source)):
            self._refused["wrong_certificate"] += 1
            refusal = f"the certificate is not node {request.source}'s"
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
        stream = self._follow(source)
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
        except asyncio.CancelledError:
            if stream not in self._replaced:
                raise
            self._replaced.discard(stream)
            refused += 1
            await context.abort(grpc.StatusCode.ABORTED, "there are newer streams of this node")
        except WireError as error:
            # the stream cannot be followed any further; the sender may open another one
            self._refused[error.reason] += 1
            refused += 1
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        finally:
            self._streams[source].remove(stream)
            if reader.inside_frame and not refused:
                self._refused["truncated"] += 1
        return pb.LinkClosed(frames=frames, refused=refused).SerializeToString()

    def _follow(self, source: int) -> asyncio.Task[object]:
        """Take note of the stream of this task; of too many from one source, the oldest ends."""
        streams = self._streams[source]
        followed = [stream for stream in streams if stream not in self._replaced]
        if len(followed) >= _STREAMS_PER_SOURCE:
            self._refused["too_many_streams"] += 1
            self._replaced.add(followed[0])
            followed[0].cancel()
        stream = asyncio.current_task()
        assert stream is not None
        streams.append(stream)
        return stream

    async def _admit(self, context: aio.ServicerContext[bytes, bytes]) -> int:
        """The peer's number; aborts the call of one that has no link to here."""
        offered = dict(context.invocation_metadata() or ())
        run, digest = str(offered.get(RUN_KEY, "")), offered.get(DIGEST_KEY, b"")
        text = str(offered.get(SOURCE_KEY, ""))
        source = int(text) if text.isdecimal() else -1
        refusal = self._refusal(run, digest if isinstance(digest, bytes) else b"", source)
        if not self._gate.proves(context, node_name(source)):
            self._refused["wrong_certificate"] += 1
            await context.abort(
                grpc.StatusCode.PERMISSION_DENIED, f"the certificate is not node {source}'s"
            )
        if refusal is not None:
            self._refused["not_admitted"] += 1
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, refusal)
        return source
