"""What only a real network can do to a link: cuts, strangers, garbage."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from grpc import StatusCode, aio
from support.grpc_cluster import DEADLINE_S, Cluster
from support.plans import plans
from support.recording import Recorder

from tidings.api import Weights
from tidings.links.shape import LinkShape
from tidings.transports.grpc_service import LINK, OPTIONS, Identity, open_link, ping
from tidings.v1 import data_pb2 as pb

pytestmark = pytest.mark.conformance

SMALL: dict[str, Any] = {"kind": "quadratic", "dim": 300, "structure": "diagonal"}
DPSGD: dict[str, Any] = {"kind": "d_psgd", "lr": 0.05}


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(DEADLINE_S):
            await test()

    asyncio.run(bounded())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


class Wire:
    """A TCP forwarder that can be cut: all its connections break, new ones are refused."""

    def __init__(self, target: str) -> None:
        self._host, port = target.rsplit(":", 1)
        self._port = int(port)
        self._writers: set[asyncio.StreamWriter] = set()
        self.whole = True

    async def open(self) -> str:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        self.cut()
        self._server.close()
        await self._server.wait_closed()

    def cut(self) -> None:
        self.whole = False
        for writer in self._writers:
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.whole:
            writer.transport.abort()
            return
        there_reader, there_writer = await asyncio.open_connection(self._host, self._port)
        self._writers |= {writer, there_writer}
        await asyncio.gather(self._copy(reader, there_writer), self._copy(there_reader, writer))
        self._writers -= {writer, there_writer}

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()


def test_a_cut_link_loses_what_comes_due_and_comes_back() -> None:
    async def test() -> None:
        given = plans(2, "line", DPSGD, SMALL, 1, link=LinkShape(rate_bit_per_s=100e6))
        wires: list[Wire] = []

        async def lay(source: int, target: int, address: str) -> str:
            if source != 0:
                return address
            wires.append(Wire(address))
            return await wires[0].open()

        async def through(cluster: Cluster) -> None:
            sender, receiver = cluster.transports
            codec = cluster.nodes[0].codec
            got: list[int] = []
            receiver.receive = lambda source, data: got.append(codec.decode(data).round)
            suspicions: list[tuple[int, bool]] = []
            sender.suspect = lambda peer, dead: suspicions.append((peer, dead))

            async def send(number: int) -> None:
                frame = codec.encode(Weights(cluster.nodes[0].model), number)
                sizes.append(frame.size_bytes)
                await sender.send(1, frame)

            sizes: list[int] = []
            await send(0)
            await until(lambda: got == [0])
            wires[0].cut()
            await until(lambda: suspicions == [(1, True)])
            for number in range(1, 6):
                await send(number)
            await sender.flush()
            counters = sender.links[1]
            assert counters.undeliverable_messages == 5
            assert counters.undeliverable_bytes == sum(sizes[1:])
            wires[0].whole = True
            await until(lambda: suspicions == [(1, True), (1, False)])
            assert counters.reconnects == 1
            await send(6)
            await until(lambda: got == [0, 6])
            assert counters.messages == 7

        async with Cluster(given, Recorder(), lay) as cluster:
            await through(cluster)
        await wires[0].close()

    run(test)


async def stranger(
    cluster: Cluster, identity: Identity, chunks: list[bytes]
) -> tuple[StatusCode, str]:
    """Open a link to node 0 as ``identity`` and write ``chunks``; what the node said to that."""

    async def attempt() -> tuple[StatusCode, str]:
        async with aio.insecure_channel(cluster.addresses[0], options=OPTIONS) as channel:
            call = open_link(channel, identity)
            try:
                for chunk in chunks:
                    await call.write(chunk)
                await call.done_writing()
                await call
            except (aio.AioRpcError, asyncio.InvalidStateError):
                return await call.code(), await call.details()
            return StatusCode.OK, ""

    # gRPC wants one loop per process
    return await cluster.io.run(attempt())


async def told(cluster: Cluster, identity: Identity) -> str | None:
    """What node 0 answers to a ping of a stranger."""
    async with aio.insecure_channel(cluster.addresses[0]) as channel:
        with pytest.raises(aio.AioRpcError) as caught:
            await ping(channel, identity, 5)
    assert caught.value.code() == StatusCode.PERMISSION_DENIED
    return caught.value.details()


def test_only_neighbors_of_the_same_run_get_in() -> None:
    async def test() -> None:
        async with Cluster(plans(4, "ring", DPSGD, SMALL, 1)) as cluster:
            good = Identity("test", 1, cluster.nodes[0].codec.digest)
            for identity, text in [
                (Identity("other", 1, good.digest), "this is run test, not other"),
                (Identity("test", 1, b"x" * 32), "protocol, message types or model size differ"),
                (Identity("test", 2, good.digest), "node 2 is not an in-neighbour of 0"),
                (Identity("test", 77, good.digest), "node 77 is not an in-neighbour of 0"),
            ]:
                assert await cluster.io.run(told(cluster, identity)) == text
                # that text may be overtaken by the end of the stream, but the end is certain
                assert (await stranger(cluster, identity, [b"abc"]))[0] != StatusCode.OK

            async def anonymous() -> StatusCode:
                async with aio.insecure_channel(cluster.addresses[0]) as channel:
                    call = channel.stream_unary(LINK)()
                    with pytest.raises(aio.AioRpcError):
                        await call
                    return await call.code()

            assert await cluster.io.run(anonymous()) != StatusCode.OK

            result = await cluster.finish(cluster.start())
            assert result.finals[0].reception.refused["not_admitted"] == 5
            assert [final.reception.messages for final in result.finals] == [2] * 4

    run(test)


def test_garbage_is_refused_counted_and_harmless() -> None:
    async def test() -> None:
        async with Cluster(plans(4, "ring", DPSGD, SMALL, 3, wait_s=5.0)) as cluster:
            codec = cluster.nodes[0].codec
            neighbor = Identity("test", 1, codec.digest)
            frame = codec.encode(Weights(cluster.nodes[0].model), 0).joined()
            wrong_type = bytearray(frame)
            wrong_type[6:8] = pb.FrameHeader(type=99).SerializeToString()
            for chunks, code in [
                # announces more than any message of the run can have
                ([b"\xff\xff\xff\x7f\x00\x00" + b"x" * 100], StatusCode.INVALID_ARGUMENT),
                # ends early
                ([frame[:-1]], StatusCode.INVALID_ARGUMENT),
                # whole frames that make no sense are dropped, the stream goes on
                ([bytes(wrong_type)], StatusCode.OK),
                ([frame[:6] + os.urandom(len(frame) - 6)], StatusCode.OK),
                # a chunk that gRPC itself refuses
                ([b"\0" * (5 << 20)], StatusCode.RESOURCE_EXHAUSTED),
            ]:
                assert (await stranger(cluster, neighbor, chunks))[0] == code
            result = await cluster.finish(cluster.start())
            assert all(final.gradients == 3 for final in result.finals)
            assert cluster.nodes[0].ledger.refused["missing"] == 0
            assert cluster.transports[0].refused["oversized"] == 1
            assert cluster.transports[0].refused["truncated"] == 1

    run(test)


def test_a_node_of_the_run_survives_its_neighbor_going_silent() -> None:
    async def test() -> None:
        given = plans(3, "line", DPSGD, SMALL, 4, link=LinkShape(rate_bit_per_s=100e6), wait_s=0.2)
        async with Cluster(given) as cluster:
            tasks = cluster.start()
            await until(lambda: cluster.nodes[2].ledger.completed >= 1)
            cluster.nodes[2].crash()
            await asyncio.gather(*tasks[:2])
            assert cluster.nodes[1].ledger.refused["missing"] >= 1
            assert cluster.nodes[1].ledger.completed == 4
            await until(lambda: cluster.nodes[1].live_neighbors == (0,))

    run(test)
