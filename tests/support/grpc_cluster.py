"""Nodes in one process that talk gRPC over loopback: what a run of processes does, without them.

All transports share one I/O thread, as gRPC wants one loop per process; every node has its own
servers, channels and streams.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from support.recording import Recorder
from tidings.runtime.carrier import endpoint_of
from tidings.runtime.checkpoint import place_of
from tidings.runtime.node import RuntimeNode
from tidings.runtime.parts import Parts
from tidings.runtime.plan import NodePlan
from tidings.runtime.real_world import RealWorld
from tidings.runtime.simulation import Simulated
from tidings.transports.credentials import Credentials
from tidings.transports.grpc import GrpcTransport
from tidings.transports.io_thread import IoThread, WallClock

#: a test that is not over by then has failed
DEADLINE_S = 60.0

#: (source, target, address) -> the address to connect to instead
Reroute = Callable[[int, int, str], Awaitable[str]]


class Cluster:
    """The nodes, their transports and worlds; use as ``async with``."""

    def __init__(
        self,
        plans: Sequence[NodePlan],
        recorder: Recorder | None = None,
        reroute: Reroute | None = None,
        credentials: Callable[[int], Credentials] | None = None,
    ) -> None:
        self.plans = list(plans)
        self.recorder = recorder or Recorder()
        self._reroute = reroute
        #: by node; None: in the clear
        self._credentials = credentials
        self.nodes: list[RuntimeNode] = []
        self.transports: list[GrpcTransport] = []
        self.addresses: dict[int, str] = {}

    async def __aenter__(self) -> Cluster:
        self.io = IoThread()
        for plan in self.plans:
            self._make(plan)
        for plan, transport in zip(self.plans, self.transports, strict=True):
            self.addresses[plan.node] = await transport.listen("127.0.0.1")
        await asyncio.gather(*(self._connect(i) for i in range(len(self.plans))))
        return self

    async def __aexit__(self, *error: object) -> None:
        for world in self.worlds:
            world.close()
        await asyncio.gather(*(transport.close() for transport in self.transports))
        self.io.stop()

    def _make(self, plan: NodePlan) -> None:
        parts = Parts.of(plan)
        clock = WallClock(plan.time_scale)
        transport = GrpcTransport(
            endpoint_of(plan, parts, clock, self.io),
            None if self._credentials is None else self._credentials(plan.node),
        )
        world = RealWorld(clock, transport, self.recorder.take)
        world.store = place_of(plan)
        self.transports.append(transport)
        self.worlds = [*getattr(self, "worlds", []), world]
        self.nodes.append(RuntimeNode(plan, parts, world))

    async def _connect(self, index: int) -> None:
        plan, transport = self.plans[index], self.transports[index]
        addresses = {j: self.addresses[j] for j in plan.links}
        if self._reroute is not None:
            for j, address in addresses.items():
                addresses[j] = await self._reroute(plan.node, j, address)
        failures = await transport.connect(addresses, 10)
        assert not failures, failures

    def start(self) -> list[asyncio.Task[None]]:
        """Start all nodes at zero."""
        for world, transport in zip(self.worlds, self.transports, strict=True):
            world.clock.restart()  # type: ignore[attr-defined]
            transport.restart()
        return [node.begin() for node in self.nodes]

    async def finish(self, tasks: Sequence[asyncio.Task[None]]) -> Simulated:
        """Until all have finished; the result in the simulator's form."""
        await asyncio.gather(*tasks)
        end_s = max(node.clock.now_s for node in self.nodes)
        for node, world, transport in zip(self.nodes, self.worlds, self.transports, strict=True):
            await node.end()
            await world.evaluated()
            await transport.flush()
        finals = [node.final() for node in self.nodes]
        return Simulated(finals, end_s, "", 0, None, self.nodes)


def run_over_grpc(
    plans: Sequence[NodePlan], recorder: Recorder | None = None, **options: object
) -> Simulated:
    """A whole run over gRPC."""

    async def main() -> Simulated:
        async with asyncio.timeout(DEADLINE_S), Cluster(plans, recorder) as cluster:
            return await cluster.finish(cluster.start())

    return asyncio.run(main())


def links_of(result: Simulated) -> Mapping[tuple[int, int], dict[str, int]]:
    """What every directed link carried, by kind."""
    return {
        (link.source, link.target): {
            "payload": link.bytes.payload,
            "metadata": link.bytes.metadata,
            "header": link.bytes.header,
            "control": link.bytes.control,
            "messages": link.messages,
            "lost": link.lost_messages,
        }
        for final in result.finals
        for link in final.links
    }
