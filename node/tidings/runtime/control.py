"""A node's line to the coordinator: one gRPC stream, unshaped, for the node's whole life."""

from __future__ import annotations

import asyncio
from typing import Any

from grpc import aio

from tidings.errors import RunError
from tidings.transports.credentials import COORDINATOR, Credentials, connect
from tidings.transports.io_thread import IoThread
from tidings.v1 import control_pb2 as pb

ATTACH = "/tidings.v1.Coordinator/Attach"

#: wall seconds between two attempts to find a coordinator again
_AGAIN_S = 0.2

OPTIONS: list[tuple[str, Any]] = [
    ("grpc.enable_http_proxy", 0),
    # control traffic must not queue behind model bytes: it has a TCP connection of its own
    ("grpc.use_local_subchannel_pool", 1),
    # try again within seconds, not minutes
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
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

    def __init__(self, io: IoThread, address: str, credentials: Credentials | None = None) -> None:
        self._io = io
        self._address = address
        self._credentials = credentials
        self._home = asyncio.get_running_loop()
        self._inbox: asyncio.Queue[pb.CoordinatorMessage | None] = asyncio.Queue()
        self._outbox: asyncio.Queue[pb.NodeMessage | None] | None = None
        self._sender: asyncio.Task[None] | None = None
        self._hello: pb.NodeMessage | None = None
        self._grace_s = 0.0
        #: all that was said since, to be said again to another coordinator; but for heartbeats
        self._said: list[pb.NodeMessage] = []
        self._running = self._closing = False

    def outlive(self, run: str, node: int, grace_s: float) -> None:
        """Once the run has begun, wait so long for a coordinator that takes over a lost one's."""
        if grace_s > 0:
            hello = pb.Hello(node=node, run=run, running=True)
            self._hello, self._grace_s = pb.NodeMessage(hello=hello), grace_s

    async def connect(self, timeout_s: float) -> None:
        """Open the line; CoordinatorLost where there is nobody at the address."""
        await self._io.run(self._connect(timeout_s))

    async def _connect(self, timeout_s: float) -> None:
        self._channel = connect(self._address, OPTIONS, self._credentials, COORDINATOR)
        try:
            async with asyncio.timeout(timeout_s):
                await self._channel.channel_ready()
        except TimeoutError:
            raise CoordinatorLost(f"no coordinator at {self._address}") from None
        self._attach()
        self._receiver = asyncio.create_task(self._receive_all())

    def _attach(self, *first: pb.NodeMessage) -> None:
        attach: aio.StreamStreamMultiCallable[pb.NodeMessage, pb.CoordinatorMessage] = (
            self._channel.stream_stream(
                ATTACH, pb.NodeMessage.SerializeToString, pb.CoordinatorMessage.FromString
            )
        )
        self._call = attach()
        self._outbox = asyncio.Queue()
        for message in first:
            self._outbox.put_nowait(message)
        self._sender = asyncio.create_task(self._send_all(self._call, self._outbox))

    def send(self, message: pb.NodeMessage) -> None:
        """Queue a message; never waits."""
        if self._outbox is not None:
            self._io.post(self._put, message)

    def _put(self, message: pb.NodeMessage) -> None:
        if self._hello is not None and message.WhichOneof("kind") not in ("heartbeat", "hello"):
            self._said.append(message)
        assert self._outbox is not None
        self._outbox.put_nowait(message)

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
        self._closing = True
        if self._outbox is not None and self._sender is not None:
            self._outbox.put_nowait(None)
            await asyncio.wait([self._sender], timeout=2.0)
        await self._channel.close()

    async def _send_all(
        self,
        call: aio.StreamStreamCall[pb.NodeMessage, pb.CoordinatorMessage],
        outbox: asyncio.Queue[pb.NodeMessage | None],
    ) -> None:
        while (message := await outbox.get()) is not None:
            try:
                await call.write(message)
            except (aio.AioRpcError, aio.UsageError, asyncio.InvalidStateError):
                return
        await call.done_writing()

    async def _receive_all(self) -> None:
        lost_s = None
        try:
            while True:
                try:
                    async for message in self._call:
                        kind, lost_s = message.WhichOneof("kind"), None
                        self._running = kind != "shutdown" and (self._running or kind == "start")
                        self._home.call_soon_threadsafe(self._inbox.put_nowait, message)
                except aio.AioRpcError:
                    pass
                now_s = asyncio.get_running_loop().time()
                lost_s = now_s if lost_s is None else lost_s
                if not await self._found_again(lost_s + self._grace_s):
                    return
        finally:
            if not self._home.is_closed():
                self._home.call_soon_threadsafe(self._inbox.put_nowait, None)

    async def _found_again(self, until_s: float) -> bool:
        """Whether there is a coordinator again before that time (of the loop); tell it all."""
        loop = asyncio.get_running_loop()
        if self._hello is None or not self._running or self._closing or loop.time() >= until_s:
            return False
        if self._sender is not None:
            self._sender.cancel()
        await self._channel.close()
        await asyncio.sleep(_AGAIN_S)
        self._channel = connect(self._address, OPTIONS, self._credentials, COORDINATOR)
        try:
            async with asyncio.timeout_at(until_s):
                await self._channel.channel_ready()
        except TimeoutError:
            return False
        self._attach(self._hello, *self._said)
        return True
