"""The life of a node process: join, plan, connect, measure, run, report, leave."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
import traceback
from dataclasses import dataclass
from typing import Any

import torch

import tidings
from tidings.errors import RunError, UserError
from tidings.links.imposed import impose
from tidings.runtime.carrier import make_transport
from tidings.runtime.checkpoint import place_of
from tidings.runtime.control import ControlClient, CoordinatorLost
from tidings.runtime.enrolment import enrol
from tidings.runtime.metrics import NodeMetrics
from tidings.runtime.node import RuntimeNode
from tidings.runtime.parts import Parts
from tidings.runtime.plan import NodePlan
from tidings.runtime.probe import Prober
from tidings.runtime.real_world import RealWorld
from tidings.transports.base import NetworkTransport
from tidings.transports.credentials import Credentials
from tidings.transports.io_thread import IoThread, WallClock
from tidings.v1 import control_pb2 as pb

_CONNECT_S = 30.0
#: a node that comes back goes on without neighbours that are dead themselves
_RECONNECT_S = 5.0
#: for what has left its sender when the run is over
_ARRIVE_S = 2.0
#: a probe may take that much longer than the link should need
_PROBE_S = 20.0


@dataclass(frozen=True)
class Seat:
    """A node's place in a run, as it is told when its process is started."""

    #: the run's id; empty: whatever run the coordinator has
    run: str
    node: int
    #: of the coordinator, host:port
    coordinator: str
    #: address to listen on
    host: str = "127.0.0.1"
    #: the host name under which others reach this node; empty: ``host``
    advertise: str = ""
    #: where the node serves its metrics, for who cannot ask the coordinator; 0: any free port
    metrics_port: int = 0
    #: the MPI rank of node 0
    first_rank: int = 0
    #: wall seconds for which it dials a coordinator that is not there yet
    patience: float = _CONNECT_S

    def reachable(self, address: str) -> str:
        """An address that this node listens on, as others are to dial it."""
        if not self.advertise or address.startswith("mpi:"):
            return address
        return f"{self.advertise}:{address.rpartition(':')[2]}"

    def scraped_at(self, address: str) -> str:
        """Where others find the metrics that are served on ``address``."""
        host, _, port = address.rpartition(":")
        if host in ("0.0.0.0", "::"):
            return self.reachable(f"{self.host}:{port}")
        return address


class NodeProcess:
    """One node of a run as a process of its own."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._transport: NetworkTransport | None = None
        self._credentials: Credentials | None = None

    async def main(self) -> None:
        """Take part in the run from joining to leaving; raises CoordinatorLost and other errors."""
        torch.set_num_threads(1)
        io = IoThread()
        seat = self._seat
        try:
            self._credentials, address = await enrol(io, seat.node, seat.coordinator, seat.patience)
            control = ControlClient(io, address, self._credentials)
            await control.connect(seat.patience)
            control.send(
                pb.NodeMessage(
                    hello=pb.Hello(
                        node=self._seat.node,
                        run=self._seat.run,
                        pid=os.getpid(),
                        version=tidings.__version__,
                    )
                )
            )
            try:
                await self._take_part(io, control)
            except (Exception, asyncio.CancelledError) as error:
                if not isinstance(error, RunError):
                    control.send(pb.NodeMessage(failure=_failure(error)))
                await control.close()
                raise
            await control.close()
        finally:
            if self._transport is not None:
                await self._transport.leave()
            io.stop()

    async def _take_part(self, io: IoThread, control: ControlClient) -> None:
        plan = NodePlan.model_validate_json((await self._expect(control, "assignment")).plan)
        control.outlive(plan.run, plan.node, plan.grace_s)
        parts = Parts.of(plan)
        clock = WallClock(plan.time_scale)
        transport = make_transport(plan, parts, clock, io, self._seat.first_rank, self._credentials)
        self._transport = transport
        world = RealWorld(clock, transport, control.send)
        world.store = place_of(plan)
        node = RuntimeNode(plan, parts, world)
        metrics = NodeMetrics(node, world)
        try:
            await self._connect(plan, node, world, metrics, control)
            clock.restart(await self._measure(plan, node, transport, clock, control))
            transport.restart()
            await self._run_protocol(plan, node, world, metrics, control)
            await self._close_links(plan, node, transport, control)
            await self._leave(plan, node, metrics, control)
        finally:
            world.close()
            await transport.close()

    # -- before the start ------------------------------------------------------------------------

    async def _connect(
        self,
        plan: NodePlan,
        node: RuntimeNode,
        world: RealWorld,
        metrics: NodeMetrics,
        control: ControlClient,
    ) -> None:
        transport = self._transport
        assert transport is not None
        listening = pb.Listening(
            data_address=self._seat.reachable(await transport.listen(self._seat.host)),
            metrics_address=self._seat.scraped_at(
                metrics.serve(plan.metrics_host or self._seat.host, self._seat.metrics_port)
            )
            if plan.metrics
            else "",
            model_size=node.codec.dim,
        )
        control.send(pb.NodeMessage(listening=listening))
        peers = await self._expect(control, "peers")
        if plan.enforce == "kernel":
            world.imposed = await asyncio.to_thread(
                impose,
                plan.links,
                peers.addresses,
                plan.nic,
                self._seat.coordinator,
                plan.time_scale,
                bool(plan.incarnation),
            )
        within_s = _RECONNECT_S if plan.incarnation else _CONNECT_S
        unreachable = await transport.connect(peers.addresses, within_s)
        deadline = time.monotonic() + within_s
        while missing := set(plan.in_neighbors) - transport.connected_sources:
            if time.monotonic() > deadline:
                unreachable |= {j: f"node {j} has not opened its link" for j in missing}
                break
            await asyncio.sleep(0.005)
        control.send(pb.NodeMessage(ready=pb.Ready(unreachable=unreachable)))

    async def _measure(
        self,
        plan: NodePlan,
        node: RuntimeNode,
        transport: NetworkTransport,
        clock: WallClock,
        control: ControlClient,
    ) -> float:
        """Answer probes, and probe when told to, until the start; its emulated time."""
        prober = Prober(plan.node, node.codec, transport, clock)
        node.on_probe = prober.arrived
        while True:
            message = await control.next()
            kind = message.WhichOneof("kind")
            if kind == "start":
                return message.start.time_s
            if kind != "probe":
                raise _unexpected(kind)
            if message.probe.calibrate:
                await transport.calibrate()
            results = []
            for target in message.probe.targets:
                rate = min(plan.links[target].rate_bit_per_s, plan.nic.egress_bit_per_s)
                results.append(await prober.measure(target, rate, _PROBE_S * plan.time_scale))
            control.send(pb.NodeMessage(probed=pb.ProbeResults(results=results)))

    # -- the run -------------------------------------------------------------------------------

    async def _run_protocol(
        self,
        plan: NodePlan,
        node: RuntimeNode,
        world: RealWorld,
        metrics: NodeMetrics,
        control: ControlClient,
    ) -> None:
        main = node.begin()
        beat = asyncio.create_task(self._heartbeat(plan, node, control))
        stop = asyncio.create_task(self._until_stop(node, world, control))
        try:
            await asyncio.wait([main, stop, beat], return_when=asyncio.FIRST_COMPLETED)
            if beat.done():
                beat.result()
            if main.done():
                main.result()
                control.send(pb.NodeMessage(done=pb.Done(rounds=node.ledger.completed)))
                metrics.finished = True
            await stop
            await node.end()
            metrics.finished = True
            await world.evaluated()
        finally:
            beat.cancel()
            stop.cancel()

    async def _until_stop(
        self, node: RuntimeNode, world: RealWorld, control: ControlClient
    ) -> None:
        """Carry out what the coordinator commands, until it says that it is over."""
        while (message := await control.next()).WhichOneof("kind") != "stop":
            if message.HasField("peers") and self._transport is not None:
                # a neighbour has been started again
                if world.imposed is not None:
                    await asyncio.to_thread(world.imposed.redirect, message.peers.addresses)
                self._transport.redirect(message.peers.addresses)
            node.obey(message)

    async def _heartbeat(self, plan: NodePlan, node: RuntimeNode, control: ControlClient) -> None:
        """Report now and then, and at once in a round that the coordinator waits for."""
        while True:
            waits = node.waiting.describe()
            _tell_activity(node, control)
            control.send(
                pb.NodeMessage(
                    heartbeat=pb.Heartbeat(
                        round=node.ledger.completed,
                        sent_bytes=node.ledger.sent().total,
                        time_s=node.clock.going_s,
                        state="waiting" if waits else "computing",
                        waits_for="; ".join(waits),
                        stuck=node.waiting.stuck,
                        link_bytes=node.ledger.sent_by_link(),
                    )
                )
            )
            node.awaited.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(node.awaited.wait(), plan.heartbeat_s)

    async def _close_links(
        self,
        plan: NodePlan,
        node: RuntimeNode,
        transport: NetworkTransport,
        control: ControlClient,
    ) -> None:
        """Count all that was sent to this node before it hands in its closing record.

        Nobody sends any more once all have ended, so what each has sent is certain then.
        """
        control.send(pb.NodeMessage(ended=pb.Ended()))
        await self._await(control, "close")
        node.fall_silent()
        await transport.flush()
        # who was started again has not counted what its former self sent and received
        whole = not plan.incarnation and not node.ledger.taken_over
        links = transport.links if whole else {}
        sent = {target: link.arriving_messages for target, link in links.items()}
        control.send(pb.NodeMessage(sent=pb.Sent(messages=sent)))
        due = (await self._await(control, "due")).messages
        deadline = time.monotonic() + _ARRIVE_S
        while whole and time.monotonic() < deadline:
            if all(node.ledger.came(source) >= messages for source, messages in due.items()):
                break
            await asyncio.sleep(0.005)

    async def _leave(
        self, plan: NodePlan, node: RuntimeNode, metrics: NodeMetrics, control: ControlClient
    ) -> None:
        """Hand in the closing record; stay until told to go and, if asked, scraped.

        Twice, so that for an interval all nodes' last values are there together, whenever in it
        each of them was scraped first.
        """
        node.timeline.end()
        _tell_activity(node, control)
        control.send(pb.NodeMessage(final=node.final()))
        await self._await(control, "shutdown")
        # by now all nodes have handed in theirs, so nothing of what is counted will change
        enough = metrics.scrapes.begun + 2
        deadline = time.monotonic() + plan.linger_s
        # scrapes come from another thread
        while metrics.scrapes.served < enough and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    async def _await(self, control: ControlClient, kind: str) -> Any:
        """At the end of the run: whatever else was still on its way, or is said again, is late."""
        while (message := await control.next()).WhichOneof("kind") not in (kind, "shutdown"):
            pass
        if message.WhichOneof("kind") != kind:
            raise _unexpected("shutdown")
        return getattr(message, kind)

    async def _expect(self, control: ControlClient, kind: str) -> Any:
        message = await control.next()
        if message.WhichOneof("kind") != kind:
            raise _unexpected(message.WhichOneof("kind"))
        return getattr(message, kind)


def _tell_activity(node: RuntimeNode, control: ControlClient) -> None:
    activity = node.timeline.take()
    if activity is not None:
        control.send(pb.NodeMessage(activity=activity))


def _unexpected(kind: str | None) -> RunError:
    """What to raise for a command that does not fit."""
    if kind in ("stop", "shutdown"):
        return CoordinatorLost("the run was called off before it began")
    return RunError(f"unexpected command '{kind}'")


def _failure(error: BaseException) -> pb.Failure:
    shown = "" if isinstance(error, UserError) else "".join(traceback.format_exception(error))
    return pb.Failure(error=f"{type(error).__name__}: {error}", traceback=shown)
