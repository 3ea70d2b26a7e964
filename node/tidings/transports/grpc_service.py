"""The Peer service of data.proto by hand: Link carries raw bytes, which generated code cannot."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from grpc import aio

from tidings.transports.identity import Identity
from tidings.v1 import data_pb2 as pb

LINK = "/tidings.v1.Peer/Link"
PING = "/tidings.v1.Peer/Ping"

#: the largest piece that is written to a stream at once (docs/decisions/0001)
MAX_WRITE_BYTES = 1 << 20

#: request metadata of a Link
RUN_KEY, SOURCE_KEY, DIGEST_KEY = "tidings-run", "tidings-source", "tidings-digest-bin"

OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", MAX_WRITE_BYTES + 4096),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
    # no sharing of a TCP connection between channels: links are independent
    ("grpc.use_local_subchannel_pool", 1),
    # after a cut, come back within seconds, not minutes
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
]

LinkHandler = Callable[
    [AsyncIterator[bytes], "aio.ServicerContext[bytes, bytes]"], Awaitable[bytes]
]
PingHandler = Callable[
    [pb.PingRequest, "aio.ServicerContext[pb.PingRequest, pb.PingReply]"], Awaitable[pb.PingReply]
]


def _metadata(identity: Identity) -> tuple[tuple[str, str | bytes], ...]:
    """What a Link is opened with."""
    return (
        (RUN_KEY, identity.run),
        (SOURCE_KEY, str(identity.node)),
        (DIGEST_KEY, identity.digest),
    )


def peer_handlers(link: LinkHandler, ping: PingHandler) -> grpc.GenericRpcHandler:
    """The service, to be added to a server."""
    return grpc.method_handlers_generic_handler(
        "tidings.v1.Peer",
        {
            "Link": grpc.stream_unary_rpc_method_handler(link),
            "Ping": grpc.unary_unary_rpc_method_handler(
                ping, pb.PingRequest.FromString, pb.PingReply.SerializeToString
            ),
        },
    )


def open_link(channel: aio.Channel, identity: Identity) -> aio.StreamUnaryCall[bytes, bytes]:
    """Begin a directed link; its writes are raw bytes."""
    method: aio.StreamUnaryMultiCallable[bytes, bytes] = channel.stream_unary(LINK)
    return method(metadata=aio.Metadata(*_metadata(identity)))


async def ping(channel: aio.Channel, identity: Identity, timeout_s: float) -> pb.PingReply:
    """Ask the node at the other end who it is; waits for it to come up, raises AioRpcError."""
    method = channel.unary_unary(PING, pb.PingRequest.SerializeToString, pb.PingReply.FromString)
    request = pb.PingRequest(run=identity.run, source=identity.node, digest=identity.digest)
    return await method(request, timeout=timeout_s, wait_for_ready=True)
