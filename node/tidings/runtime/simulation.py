"""A whole run in one process on virtual time: the same nodes, codec and link model as over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from tidings.api import Attack, Protocol
from tidings.errors import Deadlock, NodeCrashed, RunError
from tidings.runtime.node import RuntimeNode
from tidings.runtime.oracle import Oracle
from tidings.runtime.parts import Parts
from tidings.runtime.plan import NodePlan
from tidings.runtime.world import World
from tidings.transports.memory import MemoryNetwork
from tidings.transports.virtual_time import VirtualLoop, run_virtual
from tidings.units import NS_PER_S
from tidings.v1 import records_pb2 as records
from tidings.wire.frame import Frame

R = TypeVar("R")


class Observer:
    """Takes down what happens in a simulated run, and may end it.

    ``evaluation`` and ``progress`` return the reason to stop, or None to go on.
    """

    #: virtual seconds between calls of ``progress``
    interval_s: float = 0.5

    def evaluation(self, row: records.Evaluation) -> str | None:
        """A node was evaluated."""
        return None

    def progress(self, time_s: float, nodes: Sequence[RuntimeNode]) -> str | None:
        """Some virtual time has passed."""
        return None

    def event(self, event: records.Event) -> None:
        """A node logged something."""


@dataclass(frozen=True)
class Simulated:
    """What a simulated run ends with."""

    finals: list[records.Final]
    #: virtual time at which the last node was finished
    time_s: float
    #: hash over every delivery: equal seeds give equal traces
    trace_hash: str
    deliveries: int
    #: why it ended, where that was not by all nodes having finished
    reason: str | None
    nodes: list[RuntimeNode]


class _VirtualClock:
    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    @property
    def now_ns(self) -> int:
        return self._loop.now_ns

    @property
    def now_s(self) -> float:
        return self._loop.now_ns / NS_PER_S


class _SimulatedWorld(World):
    native = False

    def __init__(self, plan: NodePlan, run: _Run) -> None:
        self._run = run
        self.clock = _VirtualClock(run.loop)
        self.oracle = run.oracle
        self.transport = run.network.join(plan.node, plan.links, plan.nic, plan.chunk_bytes)

    async def compute(self, work: Callable[[], R], cost_s: float | None, factor: float) -> R:
        result = work()
        await asyncio.sleep(cost_s or 0.0)
        return result

    async def evaluate(self, work: Callable[[], records.Evaluation]) -> None:
        reason = self._run.observer.evaluation(work())
        if reason is not None:
            self._run.stop(reason)

    def event(self, event: records.Event) -> None:
        self._run.observer.event(event)


class _Run:
    """The nodes, and the rules by which a run ends."""

    def __init__(self, plans: Sequence[NodePlan], observer: Observer, loop: VirtualLoop) -> None:
        self.loop = loop
        self.observer = observer
        self.network = MemoryNetwork(loop, plans[0].seed)
        self.oracle = _oracle(plans)
        self.nodes = [
            RuntimeNode(plan, Parts.of(plan), _SimulatedWorld(plan, self)) for plan in plans
        ]
        if self.oracle is not None:
            self.oracle.nodes = self.nodes
        self.reason: str | None = None
        self._stopped = asyncio.Event()
        loop.on_deadlock = self._deadlock

    def stop(self, reason: str) -> None:
        if self.reason is None:
            self.reason = reason
        self._stopped.set()

    async def main(self) -> float:
        """Run to the end; the virtual time at which the last node was finished."""
        tasks = [node.begin() for node in self.nodes]
        self.loop.watch(round(self.observer.interval_s * NS_PER_S), self._progress)
        finished = asyncio.create_task(self._until_finished(tasks))
        stopped = asyncio.create_task(self._stopped.wait())
        await asyncio.wait([finished, stopped], return_when=asyncio.FIRST_COMPLETED)
        end_s = self.loop.time()
        for helper in (finished, stopped):
            helper.cancel()
        if finished.done():
            finished.result()
        await asyncio.gather(*(_end(node) for node in self.nodes if not node.dead))
        return end_s

    async def _until_finished(self, tasks: list[asyncio.Task[None]]) -> None:
        """Until all have finished; where only the server counts, the rest get the wait time-out."""
        everyone = dict(zip(tasks, self.nodes, strict=True))
        leaders = {
            task: node
            for task, node in everyone.items()
            if node.protocol.ends_with == "all" or node.role == "server"
        }
        await self._all_done(leaders, None)
        await self._all_done(everyone, self.nodes[0].plan.wait_s)

    async def _all_done(
        self, tasks: Mapping[asyncio.Task[None], RuntimeNode], within_s: float | None
    ) -> None:
        pending = set(tasks)
        while pending:
            done, pending = await asyncio.wait(
                pending, timeout=within_s, return_when=asyncio.FIRST_EXCEPTION
            )
            for task in done:
                node = tasks[task]
                if not (node.dead or task.cancelled()) and task.exception() is not None:
                    error = task.exception()
                    raise RunError(f"node {node.id} failed: {error!r}") from error
            if not done:
                return

    def _progress(self) -> None:
        reason = self.observer.progress(self.loop.time(), self.nodes)
        if reason is not None:
            self.stop(reason)

    def _deadlock(self) -> Exception:
        return Deadlock(deadlock_text({node.id: node.waiting.describe() for node in self.nodes}))


def _oracle(plans: Sequence[NodePlan]) -> Oracle | None:
    """One, where an attacker needs it."""
    planned = (plan.attack for plan in plans if plan.attack is not None)
    if not any(Attack.parse(attack.config).knowledge == "omniscient" for attack in planned):
        return None
    return Oracle(Protocol.parse(plans[0].protocol).synchronous, plans[0].wait_s)


async def _end(node: RuntimeNode) -> None:
    try:
        await node.end()
    except Exception as error:
        raise RunError(f"node {node.id} failed: {error!r}") from error


def deadlock_text(waits: Mapping[int, Sequence[str]]) -> str:
    """Who waits for what, one node a line."""
    lines = [f"  node {node}: {'; '.join(texts)}" for node, texts in waits.items() if texts]
    return "\n".join(["nothing can run and no timer is pending; waiting:", *lines])


def simulate(
    plans: Sequence[NodePlan],
    observer: Observer | None = None,
    *,
    stop_s: float | None = None,
    tie_seed: int | None = None,
    crash_before_send: Mapping[int, int] | None = None,
    suspect_after_s: float = 1.0,
) -> Simulated:
    """Run ``plans`` on virtual time.

    ``tie_seed`` draws the order of simultaneous events from a seed. ``crash_before_send`` kills
    nodes between two sends: ``{3: 17}`` lets node 3 make 17 sends and dies in the 18th.
    Raises Deadlock or another RunError.
    """
    loop = VirtualLoop(tie_seed)

    async def main() -> Simulated:
        run = _Run(plans, observer or Observer(), loop)
        if stop_s is not None:
            loop.call_later(stop_s, run.stop, f"time limit of {stop_s:g} s")
        for node, sends in (crash_before_send or {}).items():
            _arm_crash(run, node, sends, suspect_after_s)
        end_s = await run.main()
        return Simulated(
            finals=[node.final() for node in run.nodes if not node.dead],
            time_s=end_s,
            trace_hash=run.network.trace_hash,
            deliveries=run.network.deliveries,
            reason=run.reason,
            nodes=run.nodes,
        )

    return run_virtual(main(), loop)


def _arm_crash(run: _Run, node: int, sends: int, suspect_after_s: float) -> None:
    """Kill a node in the middle of its sending; its neighbours come to suspect it later."""
    victim, transport = run.nodes[node], run.network.nodes[node]
    send, left = transport.send, [sends]

    async def counted(target: int, frame: Frame) -> None:
        if left[0] == 0:
            victim.crash()
            for peer in victim.plan.neighbors:
                suspect = run.network.nodes[peer].suspect
                run.loop.call_later(suspect_after_s, suspect, node, True)
            raise NodeCrashed(f"node {node} was killed before its send number {sends}")
        left[0] -= 1
        await send(target, frame)

    transport.send = counted  # type: ignore[method-assign]
