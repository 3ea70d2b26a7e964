"""Links under TLS: the same run, and nobody who does not belong to it gets near."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from grpc import StatusCode, aio
from support.grpc_cluster import DEADLINE_S, Cluster
from support.plans import plans
from support.recording import Recorder
from support.strangers import EVERYBODY, SlowLoris, credentials_of

from tidings.api import Weights
from tidings.runtime.simulation import simulate
from tidings.transports import credentials as limits
from tidings.transports.credentials import connect, node_name
from tidings.transports.grpc_service import OPTIONS, Identity, open_link, ping
from tidings_coordinator.control.authority import Authority

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


class Run:
    """A ring of four under one authority, and what it has to come to."""

    def __init__(self, nodes: int = 4, topology: str = "ring", rounds: int = 5) -> None:
        self.authority = Authority()
        self.plans = plans(nodes, topology, DPSGD, SMALL, rounds)

    def cluster(self, **options: Any) -> Cluster:
        return Cluster(
            self.plans, credentials=lambda node: credentials_of(self.authority, node), **options
        )

    async def completes(self, cluster: Cluster) -> None:
        """The run goes to its end, as if nothing had happened."""
        result = await cluster.finish(cluster.start())
        # in a thread of its own, for it has a loop of its own
        expected = await asyncio.to_thread(simulate, self.plans, Recorder())
        assert [f.weights_sha256 for f in result.finals] == [
            f.weights_sha256 for f in expected.finals
        ]
        assert all(final.reception.refused["missing"] == 0 for final in result.finals)


async def attempt(
    cluster: Cluster, target: int, who: Identity, credentials: Any, chunks: list[bytes]
) -> tuple[StatusCode, str | None]:
    """Open a link to a node with these credentials; what it says to that."""

    async def there() -> tuple[StatusCode, str | None]:
        address = cluster.addresses[target]
        async with connect(address, OPTIONS, credentials, node_name(target)) as channel:
            call = open_link(channel, who)
            try:
                for chunk in chunks:
                    await call.write(chunk)
                await call.done_writing()
                await call
            except (aio.AioRpcError, asyncio.InvalidStateError):
                return await call.code(), await call.details()
            return StatusCode.OK, ""

    # gRPC wants one loop per process
    return await cluster.io.run(there())


def test_strangers_are_refused_and_counted_and_the_run_goes_on() -> None:
    async def test() -> None:
        this = Run()
        async with this.cluster() as cluster:
            tasks = cluster.start()
            for number, knock in enumerate(EVERYBODY, start=1):
                await asyncio.to_thread(knock, cluster.addresses[0])
                assert cluster.transports[0].refused == {"unauthenticated": number}, knock
            await cluster.finish(tasks)
            for transport in cluster.transports[1:]:
                assert transport.refused == {}
        async with this.cluster() as cluster:
            await this.completes(cluster)

    run(test)


def test_a_certificate_is_good_for_its_own_node_only() -> None:
    async def test() -> None:
        this = Run()
        async with this.cluster() as cluster:
            digest = cluster.nodes[0].codec.digest
            second = credentials_of(this.authority, 2)
            # node 2 as its neighbour's neighbour: node 0 does not know it
            code, text = await attempt(cluster, 0, Identity("test", 2, digest), second, [b"abc"])
            # the reason may be overtaken by the end of the stream, but the end is certain
            assert code != StatusCode.OK, text
            assert cluster.transports[0].refused == {"not_admitted": 1}
            # node 2 as node 1, which is a neighbour
            code, text = await attempt(cluster, 0, Identity("test", 1, digest), second, [b"abc"])
            assert code != StatusCode.OK, text
            assert cluster.transports[0].refused == {"not_admitted": 1, "wrong_certificate": 1}

            async def asked() -> str | None:
                address = cluster.addresses[0]
                async with connect(address, OPTIONS, second, node_name(0)) as channel:
                    with pytest.raises(aio.AioRpcError) as caught:
                        await ping(channel, Identity("test", 1, digest), 30)
                return caught.value.details()

            assert await cluster.io.run(asked()) == "the certificate is not node 1's"
            assert cluster.transports[0].refused["wrong_certificate"] == 2
            await this.completes(cluster)

    run(test)


def test_whoever_answers_must_be_the_node_that_was_dialled() -> None:
    async def test() -> None:
        this = Run()
        async with this.cluster() as cluster:
            digest = cluster.nodes[0].codec.digest

            async def dialled(name: str, credentials: Any) -> aio.AioRpcError:
                async with connect(cluster.addresses[0], OPTIONS, credentials, name) as channel:
                    with pytest.raises(aio.AioRpcError) as caught:
                        await open_link(channel, Identity("test", 1, digest))
                return caught.value

            first = credentials_of(this.authority, 1)
            found = await cluster.io.run(dialled(node_name(3), first))
            assert found.code() == StatusCode.UNAVAILABLE
            assert "Hostname Verification" in (found.details() or "")
            other = credentials_of(Authority(), 1)
            found = await cluster.io.run(dialled(node_name(0), other))
            assert found.code() == StatusCode.UNAVAILABLE
            await this.completes(cluster)

    run(test)


def test_an_oversized_frame_of_a_neighbor_is_refused_and_counted() -> None:
    async def test() -> None:
        this = Run()
        async with this.cluster() as cluster:
            who = Identity("test", 1, cluster.nodes[0].codec.digest)
            first = credentials_of(this.authority, 1)
            announced = b"\xff\xff\xff\x7f\x00\x00" + b"x" * 100
            code, _ = await attempt(cluster, 0, who, first, [announced])
            assert code == StatusCode.INVALID_ARGUMENT
            assert cluster.transports[0].refused == {"oversized": 1}
            # one piece that is larger than any piece may be
            code, _ = await attempt(cluster, 0, who, first, [b"\0" * (5 << 20)])
            assert code == StatusCode.RESOURCE_EXHAUSTED
            await this.completes(cluster)

    run(test)


def test_the_oldest_of_too_many_streams_ends() -> None:
    async def test() -> None:
        this = Run()
        async with this.cluster() as cluster:
            who = Identity("test", 1, cluster.nodes[0].codec.digest)
            first = credentials_of(this.authority, 1)

            async def many() -> list[bool]:
                address = cluster.addresses[0]
                async with connect(address, OPTIONS, first, node_name(0)) as channel:
                    # node 1 has one of its own, which is the oldest
                    calls = []
                    for _ in range(4):
                        calls.append(open_link(channel, who))
                        await calls[-1].initial_metadata()
                    await until(lambda: cluster.transports[0].refused["too_many_streams"] == 1)
                    return [call.done() for call in calls]

            assert await cluster.io.run(many()) == [False] * 4
            # node 1 has noticed, and comes back
            await until(lambda: cluster.transports[1].links[0].reconnects == 1)
            await this.completes(cluster)

    run(test)


def test_a_slow_loris_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HANDSHAKE_S", 1.0)

    async def test() -> None:
        this = Run()
        async with this.cluster() as cluster:
            with SlowLoris(cluster.addresses[0], 100) as loris:
                await until(lambda: cluster.transports[0].refused["unauthenticated"] == 100)
                # the run goes on beside it
                await this.completes(cluster)
                await until(lambda: loris.dribble() == 0)
            assert cluster.transports[0].refused == {"unauthenticated": 100}

    run(test)


def test_more_connections_than_allowed_are_closed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_SPARE_CONNECTIONS", 20)

    async def test() -> None:
        this = Run()
        async with this.cluster() as cluster:
            # 22 are allowed; two neighbours have one each
            with SlowLoris(cluster.addresses[0], 50) as loris:
                await until(lambda: loris.dribble() == 20)
                await this.completes(cluster)

    run(test)


class Tap:
    """A wire that remembers what goes over it."""

    def __init__(self, target: str) -> None:
        self._host, port = target.rsplit(":", 1)
        self._port = int(port)
        self.heard = bytearray()

    async def open(self) -> str:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(self._host, self._port)
        await asyncio.gather(self._copy(reader, there_writer), self._copy(there_reader, writer))

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                self.heard += data
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()


@pytest.mark.parametrize("protected", [True, False])
def test_no_model_can_be_read_on_the_wire(protected: bool) -> None:
    async def test() -> None:
        this, taps = Run(2, "line"), list[Tap]()

        async def tap(source: int, target: int, address: str) -> str:
            taps.append(Tap(address))
            return await taps[-1].open()

        cluster = this.cluster(reroute=tap) if protected else Cluster(this.plans, reroute=tap)
        async with cluster:
            sender, receiver = cluster.transports
            got: list[bytes] = []
            receiver.receive = lambda source, data: got.append(bytes(data))
            frame = cluster.nodes[0].codec.encode(Weights(cluster.nodes[0].model), 0)
            await sender.send(1, frame)
            await until(lambda: bool(got))
            model = cluster.nodes[0].model.numpy().tobytes()
            assert model in got[0]
            heard = b"".join(bytes(each.heard) for each in taps)
            assert len(heard) > len(model)
            assert (model[:64] in heard) is not protected
            assert (b"tidings-source" in heard or b"test" in heard) is not protected
        for each in taps:
            await each.close()

    run(test)
