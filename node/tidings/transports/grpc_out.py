"""The sending end of one directed link over gRPC. Lives in the I/O thread."""

from __future__ import annotations

import asyncio
import time

from grpc import aio

from tidings.transports.credentials import Credentials, connect, node_name
from tidings.transports.grpc_service import MAX_WRITE_BYTES, OPTIONS, open_link, ping
from tidings.transports.out_link import LinkEnd, OutLink
from tidings.wire.frame import Buffer

#: real seconds between attempts to come back after a cut
_RETRY_S = (0.2, 0.4, 0.8, 1.6, 2.0)

_BROKEN = (aio.AioRpcError, aio.UsageError, asyncio.InvalidStateError)


class GrpcOutLink(OutLink):
    """A client stream; after a cut it reconnects by itself."""

    def __init__(self, end: LinkEnd, credentials: Credentials | None = None) -> None:
        super().__init__(end)
        self._credentials = credentials
        self._channel = connect(end.address, OPTIONS, credentials, node_name(end.peer))
        #: the attempts to come back after a cut
        self._coming_back: asyncio.Task[None] | None = None
        self._call: aio.StreamUnaryCall[bytes, bytes] | None = None

    @property
    def connected(self) -> bool:
        """Whether the stream is open."""
        return self._call is not None

    async def connect(self, timeout_s: float) -> None:
        """Find the peer, agree with it, open the stream; raises AioRpcError or ValueError."""
        async with asyncio.timeout(timeout_s):
            reply = await ping(self._channel, self._identity, timeout_s)
            if reply.node != self._peer:
                raise ValueError(f"expected node {self._peer}, found node {reply.node}")
            await self._open()
        self._begin()

    def connect_later(self) -> None:
        """As OutLink.connect_later."""
        self._begin()
        self._suspect(self._peer, True)
        self._come_back()

    def redirect(self, address: str) -> None:
        """As OutLink.redirect: what is on its way to the old process is lost."""
        old, call = self._channel, self._call
        self._channel = connect(address, OPTIONS, self._credentials, node_name(self._peer))
        if call is not None:
            self._call = None
            call.cancel()
            self._cut()
        self._come_back(at_once=True)
        self._spawn(old.close())

    async def round_trip_s(self, timeout_s: float) -> float:
        """As OutLink.round_trip_s; raises AioRpcError."""
        began = time.perf_counter()
        await ping(self._channel, self._identity, timeout_s)
        return time.perf_counter() - began

    async def write(self, pieces: list[Buffer], whole: bool) -> bool:
        """As OutLink.write."""
        call = self._call
        if call is None:
            return False
        # gRPC takes nothing but bytes; what is bytes already is not copied
        data = bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)
        try:
            for start in range(0, len(data), MAX_WRITE_BYTES):
                await call.write(data[start : start + MAX_WRITE_BYTES])
        except _BROKEN:
            self._lost(call)
            return False
        return True

    def reset(self) -> None:
        """Break the stream off; it comes back by itself."""
        if self._call is not None:
            self._call.cancel()

    async def abort(self) -> None:
        """Break the stream and the connection off; what is on its way may be lost."""
        self._end()
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
        await self._channel.close()

    async def close(self, timeout_s: float) -> None:
        """End the stream and the connection; what was written is delivered first."""
        await self.flush()
        self._end()
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
            self._cut()
            self._come_back()

    def _come_back(self, at_once: bool = False) -> None:
        if self._coming_back is not None:
            self._coming_back.cancel()
        self._coming_back = asyncio.create_task(self._reconnect(at_once))
        self._tasks.add(self._coming_back)
        self._coming_back.add_done_callback(self._tasks.discard)

    async def _reconnect(self, at_once: bool) -> None:
        attempt = 0
        while True:
            if attempt or not at_once:
                await asyncio.sleep(_RETRY_S[min(attempt, len(_RETRY_S) - 1)])
            attempt += 1
            try:
                await self._open()
            except (*_BROKEN, OSError):
                continue
            self._counters.reconnects += 1
            self._suspect(self._peer, False)
            return


async def _error_of(call: aio.StreamUnaryCall[bytes, bytes]) -> aio.AioRpcError:
    return aio.AioRpcError(
        await call.code(), aio.Metadata(), aio.Metadata(), details=await call.details()
    )
