"""Processes with a Tidings transport between them, for benchmarks.

Every peer is a process of its own, started by spawn with one thread for BLAS, as nodes are. A
*script* is a coroutine that runs in it: ``script(peer, *arguments) -> result``.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

Script = Callable[..., Awaitable[Any]]


class Peer:
    """What a script sees: a transport, a codec for models of ``size`` bytes, arrivals by time."""

    def __init__(self, node: int, setup: Setup) -> None:
        from tidings.api import Protocol
        from tidings.transports.endpoint import Endpoint
        from tidings.transports.grpc import GrpcTransport
        from tidings.transports.identity import Identity
        from tidings.transports.io_thread import IoThread, WallClock
        from tidings.wire.codec import Codec

        protocol = Protocol.parse({"kind": "d_psgd", "lr": 0.1})
        self.codec = Codec(protocol, setup.size_bytes // 4, setup.chunk_bytes)
        self.clock = WallClock()
        self.io = IoThread()
        #: (time in ns, source) of each frame, in order
        self.arrivals: list[tuple[int, int]] = []
        self.arrived = asyncio.Event()
        links = setup.links.get(node, {})
        sources = frozenset(s for s, targets in setup.links.items() if node in targets)
        self.transport = GrpcTransport(
            Endpoint(
                Identity("benchmark", node, self.codec.digest),
                links,
                setup.nics.get(node) or _open_nic(),
                sources,
                0,
                self.clock,
                self.io,
                self.codec.check_length,
                setup.chunk_bytes,
            ),
        )
        self.transport.suspect = lambda peer, dead: None
        self.transport.receive = self._receive

    def _receive(self, source: int, frame: Any) -> None:
        self.codec.decode(frame)
        self.arrivals.append((self.clock.now_ns, source))
        self.arrived.set()

    async def until(self, count: int) -> None:
        """Until that many frames have arrived."""
        while len(self.arrivals) < count:
            self.arrived.clear()
            await self.arrived.wait()

    def frame(self, number: int = 0) -> Any:
        """A message as large as the model."""
        import torch

        from tidings.api import Weights

        return self.codec.encode(Weights(torch.randn(self.codec.dim)), number)


@dataclass(frozen=True)
class Setup:
    """Who is connected how; the links' and cards' shapes as in tidings.links."""

    size_bytes: int
    links: Mapping[int, Mapping[int, Any]]
    nics: Mapping[int, Any]
    chunk_bytes: int = 1 << 20


def _open_nic() -> Any:
    from tidings.links.shape import NicShape

    return NicShape()


def run(setup: Setup, scripts: Sequence[tuple[Script, tuple[Any, ...]]]) -> list[Any]:
    """Start one peer per script, connect them, run the scripts together; their results."""
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    spawn = multiprocessing.get_context("spawn")
    pipes: list[Connection] = []
    processes: list[BaseProcess] = []
    for node, (script, arguments) in enumerate(scripts):
        here, there = spawn.Pipe()
        process = spawn.Process(target=_main, args=(node, setup, there, script, arguments))
        process.start()
        pipes.append(here)
        processes.append(process)
    addresses = {node: pipe.recv() for node, pipe in enumerate(pipes)}
    for _ in range(2):
        # connected; then all start together
        for pipe in pipes:
            pipe.send(addresses)
        for pipe in pipes:
            assert pipe.recv() == "ok"
    results = [pipe.recv() for pipe in pipes]
    for pipe in pipes:
        pipe.send("done")
    for process in processes:
        process.join()
    return results


def _main(
    node: int, setup: Setup, pipe: Connection, script: Script, arguments: tuple[Any, ...]
) -> None:
    asyncio.run(_live(node, setup, pipe, script, arguments))


async def _live(
    node: int, setup: Setup, pipe: Connection, script: Script, arguments: tuple[Any, ...]
) -> None:
    peer = Peer(node, setup)
    loop = asyncio.get_running_loop()
    pipe.send(await peer.transport.listen("127.0.0.1"))
    addresses = await loop.run_in_executor(None, pipe.recv)
    targets = setup.links.get(node, {})
    failures = await peer.transport.connect({j: addresses[j] for j in targets}, 30)
    assert not failures, failures
    await peer.transport.calibrate()
    pipe.send("ok")
    await loop.run_in_executor(None, pipe.recv)
    peer.clock.restart()
    peer.transport.restart()
    pipe.send("ok")
    pipe.send(await script(peer, *arguments))
    await loop.run_in_executor(None, pipe.recv)
    await peer.transport.close()
    peer.io.stop()
