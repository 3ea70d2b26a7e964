"""A node's line to the coordinator: one gRPC stream, unshaped, for the node's whole life."""

from __future__ import annotations

import asyncio
from typing import Any

from grpc import aio

from tidings.errors import RunError
from tidings.transports.io_thread import IoThread
from tidings.v1 import control_pb2 as pb

ATTACH = "/tidings.v1.Coordinator/Attach"

OPTIONS: list[tuple[str, Any]] = [
    ("grpc.enable_http_proxy", 0),
    # control traffic must not queue behind model bytes: it has a TCP connection of its own
    ("grpc.use_local_subchannel_pool", 1),
    # plans and final records of large graphs
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", 64 << 20),
    # nodes may be there minutes before their coordinator and its name are, and must not miss it
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.dns_min_time_between_resolutions_ms", 1000),
]


class CoordinatorLost(RunError):
    """The coordinator has gone away, or has called the run off."""


class ControlClient:
    """Sends NodeMessages and receives CoordinatorMessages; used from the node's own loop."""

    def __init__(self, io: IoThread, address: str) -> None:
        self._io = io
        self._address = address
        self._home = asyncio.get_running_loop()
        self._inbox: asyncio.Queue[pb.CoordinatorMessage | None] = asyncio.Queue()
        self._outbox: asyncio.Queue[pb.NodeMessage | None] | None = None
        self._sender: asyncio.Task[None] | None = None

    async def connect(self, timeout_s: float) -> None:
        """Open the line; CoordinatorLost where there is nobody at the address."""
        await self._io.run(self._connect(timeout_s))

    async def _connect(self, timeout_s: float) -> None:
        self._channel = aio.insecure_channel(self._address, options=OPTIONS)
        try:
            async with asyncio.timeout(timeout_s):
                await self._channel.channel_ready()
        except TimeoutError:
            raise CoordinatorLost(f"no coordinator at {self._address}") from None
        attach: aio.StreamStreamMultiCallable[pb.NodeMessage, pb.CoordinatorMessage] = (
            self._channel.stream_stream(
                ATTACH, pb.NodeMessage.SerializeToString, pb.CoordinatorMessage.FromString
            )
        )
        self._call = attach()
        self._outbox = asyncio.Queue()
        self._sender = asyncio.create_task(self._send_all())
        self._receiver = asyncio.create_task(self._receive_all())

    def send(self, message: pb.NodeMessage) -> None:
        """Queue a message; never waits."""
        if self._outbox is not None:
            self._io.post(self._outbox.put_nowait, message)

    async def next(self) -> pb.CoordinatorMessage:
        """The coordinator's next message; CoordinatorLost when there will be none."""
        message = await self._inbox.get()
        if message is None:
            self._inbox.put_nowait(None)
            raise CoordinatorLost("the coordinator has closed the line")
        return message

    async def close(self) -> None:
        """Send what is queued, then hang up."""
        await self._io.run(self._close())

    async def _close(self) -> None:
        if self._outbox is not None and self._sender is not None:
            self._outbox.put_nowait(None)
            await asyncio.wait([self._sender], timeout=2.0)
        await self._channel.close()

    async def _send_all(self) -> None:
        assert self._outbox is not None
        while (message := await self._outbox.get()) is not None:
            try:
                await self._call.write(message)
            except (aio.AioRpcError, aio.UsageError, asyncio.InvalidStateError):
                return
        await self._call.done_writing()

    async def _receive_all(self) -> None:
        try:
            async for message in self._call:
                self._home.call_soon_threadsafe(self._inbox.put_nowait, message)
        except aio.AioRpcError:
            pass
        finally:
            if not self._home.is_closed():
                self._home.call_soon_threadsafe(self._inbox.put_nowait, None)
