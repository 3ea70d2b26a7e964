"""The control plane against those who have a certificate, and use it for what it is not for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from grpc import StatusCode, aio
from support.strangers import credentials_of

from tidings.runtime.control import ATTACH, OPTIONS
from tidings.transports.credentials import COORDINATOR, connect
from tidings.v1 import control_pb2 as pb
from tidings.v1 import records_pb2 as records
from tidings_coordinator.control import server as control
from tidings_coordinator.control.authority import Authority
from tidings_coordinator.control.refusals import Refusals
from tidings_coordinator.control.server import ControlServer

pytestmark = pytest.mark.conformance

DEADLINE_S = 60.0


@dataclass
class Door:
    """A control plane under TLS, and what it has refused."""

    server: ControlServer
    authority: Authority
    refusals: Refusals
    address: str

    async def attach(
        self, certified: int, messages: Sequence[pb.NodeMessage], close: bool = True
    ) -> StatusCode:
        """Say ``messages`` with the certificate of a node; how the call ends."""
        credentials = credentials_of(self.authority, certified)
        async with connect(self.address, OPTIONS, credentials, COORDINATOR) as channel:
            call: aio.StreamStreamCall[pb.NodeMessage, pb.CoordinatorMessage] = (
                channel.stream_stream(
                    ATTACH, pb.NodeMessage.SerializeToString, pb.CoordinatorMessage.FromString
                )()
            )
            try:
                for message in messages:
                    await call.write(message)
                if close:
                    await call.done_writing()
                async for _ in call:
                    pass
            except (aio.AioRpcError, asyncio.InvalidStateError):
                pass
            return await call.code()


@asynccontextmanager
async def door() -> AsyncIterator[Door]:
    authority, refusals = Authority(), Refusals()
    server = ControlServer("this", 3, refusals=refusals)
    address = await server.listen("127.0.0.1", 0, authority.own())
    try:
        yield Door(server, authority, refusals, address)
    finally:
        await server.close()


def run(test: Callable[[Door], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(DEADLINE_S), door() as found:
            await test(found)

    asyncio.run(bounded())


def hello(node: int, run: str = "this") -> pb.NodeMessage:
    return pb.NodeMessage(hello=pb.Hello(node=node, run=run))


def test_a_certificate_is_good_for_one_seat() -> None:
    async def test(door: Door) -> None:
        assert await door.attach(2, [hello(0)]) != StatusCode.OK
        assert door.refusals.counts == {"wrong_certificate": 1}
        assert await door.attach(0, [hello(0, "another")]) != StatusCode.OK
        assert await door.attach(3, [hello(3)]) != StatusCode.OK
        assert door.refusals.counts == {"wrong_certificate": 1, "not_admitted": 2}
        assert all(session.hello is None for session in door.server.sessions.values())
        assert await door.attach(0, [hello(0)]) == StatusCode.OK
        # the seat has been taken, for good
        assert await door.attach(0, [hello(0)]) != StatusCode.OK
        assert door.refusals.counts["not_admitted"] == 3

    run(test)


def test_an_oversized_message_is_refused_and_takes_no_seat() -> None:
    async def test(door: Door) -> None:
        large = pb.NodeMessage(hello=pb.Hello(node=1, run="x" * (5 << 20)))
        assert await door.attach(1, [large]) != StatusCode.OK
        assert door.refusals.counts == {"no_hello": 1}
        assert await door.attach(1, [hello(1)]) == StatusCode.OK

    run(test)


def test_whoever_does_not_say_who_it_is_must_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "_HELLO_S", 0.2)

    async def test(door: Door) -> None:
        assert await door.attach(1, [], close=False) != StatusCode.OK
        assert await door.attach(1, [pb.NodeMessage(done=pb.Done())]) != StatusCode.OK
        assert door.refusals.counts == {"no_hello": 2}

    run(test)


def test_a_node_speaks_for_itself_only() -> None:
    async def test(door: Door) -> None:
        row = pb.NodeMessage(evaluation=records.Evaluation(node=0, metrics={"accuracy": 1.0}))
        closing = pb.NodeMessage(final=records.Final(node=2, weights_sha256=b"x"))
        own = pb.NodeMessage(evaluation=records.Evaluation(node=1))
        assert await door.attach(1, [hello(1), row, closing, own]) == StatusCode.OK
        assert door.refusals.counts == {"not_its_own": 2}
        assert door.server.rows.get_nowait().node == 1
        assert door.server.rows.empty()
        assert all(session.final is None for session in door.server.sessions.values())

    run(test)
