"""A whole run in one process on virtual time: the same nodes, codec and link model as over gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from tidings.api import Attack, Protocol
from tidings.errors import Deadlock, NodeCrashed, RunError
from tidings.runtime.checkpoint import Shelf, Store, folder_of
from tidings.runtime.node import RuntimeNode
from tidings.runtime.observer import Observer
from tidings.runtime.oracle import Oracle
from tidings.runtime.parts import Parts
from tidings.runtime.plan import ArmedFault, NodePlan
from tidings.runtime.turns import Script, until_played
from tidings.runtime.world import World
from tidings.transports.memory import MemoryNetwork
from tidings.transports.virtual_time import VirtualClock, VirtualLoop, run_virtual
from tidings.units import NS_PER_S
from tidings.v1 import records_pb2 as records
from tidings.wire.frame import Frame

R = TypeVar("R")

#: virtual seconds in which a message that is on its way should have arrived
_STUCK_S = 60.0


class Controls:
    """What can be done to the nodes of a simulated run, from outside, now."""

    def __init__(self, run: Run, suspect_after_s: float) -> None:
        self._run = run
        self._suspect_after_s = suspect_after_s
        #: told that the coordinator dies, and after how many seconds another one takes over
        self.crash: Callable[[float], None] = lambda after_s: None

    @property
    def now_s(self) -> float:
        """Virtual seconds since the start."""
        return self._run.loop.time()

    @property
    def nodes(self) -> Sequence[RuntimeNode]:
        """All nodes."""
        return self._run.nodes

    def at(self, time_s: float, what: Callable[[], None]) -> None:
        """Have something done at a point in time."""
        self._run.loop.at_ns(math.ceil(time_s * NS_PER_S), what)

    def begin(self, node: int, armed: ArmedFault) -> None:
        """Let a fault begin at a node."""
        self._run.nodes[node].agent.begin(armed)

    def heal(self, node: int, event: str, occurrence: int) -> None:
        """Let a fault end at a node."""
        self._run.nodes[node].agent.heal(event, occurrence)

    def kill(self, node: int, comes_back: bool) -> None:
        """The node dies; its neighbours come to suspect it later."""
        self._run.nodes[node].crash()
        self._run.loop.call_later(self._suspect_after_s, self._missed, node)

    def _missed(self, node: int) -> None:
        if self._run.nodes[node].dead:
            for peer in self._run.nodes[node].plan.neighbors:
                self._run.network.nodes[peer].suspect(node, True)

    def restart(self, node: int, lose_state: bool) -> None:
        """A node that was killed comes back."""
        self._run.restart(node, lose_state)

    def pause(self, node: int, event: str) -> None:
        """The node stands still."""
        self._run.nodes[node].gate.close(event, deaf=False)

    def resume(self, node: int, event: str) -> None:
        """The node goes on."""
        self._run.nodes[node].gate.open(event)

    def hang_up(self, done: Callable[[float, Mapping[str, Any]], None]) -> None:
        """Nodes have no line to their coordinator in virtual time: it only has to be deaf."""
        done(self.now_s, {})

    listen = hang_up

    def tell(self, node: int, present: bool) -> None:
        """Its neighbours know for certain whether a node takes part."""
        for peer in self._run.nodes[node].plan.neighbors:
            self._run.nodes[peer].told(node, present)


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


class _SimulatedWorld(World):
    native = False

    def __init__(self, plan: NodePlan, run: Run) -> None:
        self._run = run
        self._node = plan.node
        self.clock = VirtualClock(run.loop)
        self.oracle = run.oracle
        self.store = run.store_of(plan)
        self.transport = run.network.join(
            plan.node, plan.links, plan.nic, plan.chunk_bytes, plan.link_seed
        )

    async def compute(self, work: Callable[[], R], cost_s: float | None, factor: float) -> R:
        result = work()
        await asyncio.sleep(cost_s or 0.0)
        return result

    async def evaluate(self, work: Callable[[], records.Evaluation]) -> None:
        reason = self._run.observer.evaluation(work())
        if reason is not None:
            self._run.stop(reason)

    async def aside(self, work: Callable[[], R]) -> R:
        return work()

    def event(self, event: records.Event) -> None:
        self._run.observer.event(event)

    def fault(self, change: records.FaultChange) -> None:
        self._run.observer.fault(change)

    def arrived(self, armed: ArmedFault, round_: int) -> None:
        self._run.observer.arrived(self._node, armed, round_)


class Run:
    """The nodes, and the rules by which a run ends."""

    def __init__(self, plans: Sequence[NodePlan], observer: Observer, loop: VirtualLoop) -> None:
        self.loop = loop
        self.observer = observer
        self.network = MemoryNetwork(loop, plans[0].seed)
        self.oracle = _oracle(plans)
        self._shelves: dict[int, Shelf] = {}
        self.nodes = [
            RuntimeNode(plan, Parts.of(plan), _SimulatedWorld(plan, self)) for plan in plans
        ]
        if self.oracle is not None:
            self.oracle.nodes = self.nodes
        self.reason: str | None = None
        self._stopped = asyncio.Event()
        #: nodes whose protocol has not come to its end
        self._running: dict[asyncio.Task[None], RuntimeNode] = {}
        self._failed: tuple[RuntimeNode, BaseException] | None = None
        self._news = asyncio.Event()
        self._stuck_since_s = math.inf
        loop.on_deadlock = self._deadlock

    def store_of(self, plan: NodePlan) -> Store | None:
        """Where a node's checkpoints are: in its folder, or here as long as the run."""
        if plan.checkpoint is None:
            return None
        if plan.checkpoint.directory:
            return folder_of(plan.checkpoint.directory, plan.node)
        return self._shelves.setdefault(plan.node, Shelf())

    def stop(self, reason: str) -> None:
        if self.reason is None:
            self.reason = reason
        self._stopped.set()

    def restart(self, number: int, lose_state: bool = False) -> RuntimeNode:
        """Start a node that has crashed again, from its last checkpoint or from nothing.

        What it has counted goes on; RunError for one that is alive.
        """
        old = self.nodes[number]
        if not old.dead:
            raise RunError(f"node {number} is alive and cannot be restarted")
        plan = old.plan.model_copy(
            update={
                "incarnation": old.plan.incarnation + 1,
                "restore": None if lose_state else "last",
                "resumed": False,
            }
        )
        before = self.network.nodes[number]
        node = RuntimeNode(plan, Parts.of(plan), _SimulatedWorld(plan, self))
        # the same books, for what had left before the crash is still on its way
        self.network.nodes[number].links = before.links
        self.nodes[number] = node
        self._begin(node)
        node.take_over(old)
        return node

    async def main(self) -> float:
        """Run to the end; the virtual time at which the last node was finished."""
        for node in self.nodes:
            self._begin(node)
        self.loop.watch(round(self.observer.interval_s * NS_PER_S), self._progress)
        scripts = [node.turns for node in self.nodes if isinstance(node.turns, Script)]
        until = until_played(scripts) if scripts else self._until_finished()
        finished = asyncio.create_task(until)
        stopped = asyncio.create_task(self._stopped.wait())
        await asyncio.wait([finished, stopped], return_when=asyncio.FIRST_COMPLETED)
        end_s = self.loop.time()
        for helper in (finished, stopped):
            helper.cancel()
        if finished.done():
            finished.result()
        await asyncio.gather(*(_end(node) for node in self.nodes if not node.dead))
        return end_s

    def _begin(self, node: RuntimeNode) -> None:
        task = node.begin()
        self._running[task] = node
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        node = self._running.pop(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not node.dead and self._failed is None:
            self._failed = node, error
        if self._failed or not self._leaders or not self._running:
            self._news.set()

    @property
    def _leaders(self) -> bool:
        """Whether any node runs for which the run waits without limit."""
        return any(
            node.protocol.ends_with == "all" or node.role == "server"
            for node in self._running.values()
        )

    async def _until_finished(self) -> None:
        """Until all have finished; where only the server counts, the rest get the wait time-out."""
        while self._leaders and not self._failed:
            self._news.clear()
            await self._news.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.nodes[0].plan.wait_s):
                while self._running and not self._failed:
                    self._news.clear()
                    await self._news.wait()
        if self._failed:
            raise _failure(*self._failed)

    def _progress(self) -> None:
        if self.nodes[0].plan.heartbeat is not None:
            self._check_stuck()
        reason = self.observer.progress(self.loop.time(), self.nodes)
        if reason is not None:
            self.stop(reason)

    def _check_stuck(self) -> None:
        """Deadlock, where nothing but heartbeats has kept time going for long."""
        stuck = bool(self._running) and all(n.waiting.stuck for n in self._running.values())
        if not stuck:
            self._stuck_since_s = math.inf
            return
        self._stuck_since_s = min(self._stuck_since_s, self.loop.time())
        if self.loop.time() > self._stuck_since_s + _STUCK_S:
            raise self._deadlock()

    def _deadlock(self) -> Exception:
        if self._failed:
            return _failure(*self._failed)
        deadlock = Deadlock.of({node.id: node.waiting.describe() for node in self.nodes})
        if self.nodes[0].plan.script is not None:
            return RunError(f"this is no longer the run that was recorded: {deadlock}")
        return deadlock


def _oracle(plans: Sequence[NodePlan]) -> Oracle | None:
    """One, where an attacker needs it."""
    planned = (plan.attack for plan in plans if plan.attack is not None)
    if not any(Attack.parse(attack.config).knowledge == "omniscient" for attack in planned):
        return None
    return Oracle(Protocol.parse(plans[0].protocol).synchronous, plans[0].wait_s)


def _failure(node: RuntimeNode, error: BaseException) -> RunError:
    failure = RunError(f"node {node.id} failed: {error!r}")
    failure.__cause__ = error
    return failure


async def _end(node: RuntimeNode) -> None:
    try:
        await node.end()
    except Exception as error:
        raise _failure(node, error) from error


@dataclass(frozen=True)
class Restart:
    """That a node which crashes is started again."""

    #: emulated seconds after the crash
    after_s: float
    lose_state: bool = False


def simulate(
    plans: Sequence[NodePlan],
    observer: Observer | None = None,
    *,
    stop_s: float | None = None,
    tie_seed: int | None = None,
    crash_before_send: Mapping[int, int] | None = None,
    restarts: Mapping[int, Restart] | None = None,
    start_s: float = 0.0,
    suspect_after_s: float = 1.0,
) -> Simulated:
    """Run ``plans`` on virtual time.

    ``tie_seed`` draws the order of simultaneous events from a seed. ``crash_before_send`` kills
    nodes between two sends: ``{3: 17}`` lets node 3 make 17 sends and dies in the 18th.
    ``restarts`` says which of them come back. ``start_s`` is the time at which the run begins, for
    one that goes on.
    Raises Deadlock or another RunError.
    """
    loop = VirtualLoop(tie_seed, round(start_s * NS_PER_S))

    async def main() -> Simulated:
        run = Run(plans, observer or Observer(), loop)
        if stop_s is not None:
            loop.call_at(stop_s, run.stop, f"time limit of {stop_s:g} s")
        run.observer.begun(Controls(run, suspect_after_s))
        for node, sends in (crash_before_send or {}).items():
            arm_crash(run, node, sends, suspect_after_s, (restarts or {}).get(node))
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


def arm_crash(
    run: Run, node: int, sends: int, suspect_after_s: float, restart: Restart | None
) -> None:
    """Kill a node in the middle of its sending; its neighbours come to suspect it later."""
    transport = run.network.nodes[node]
    send, left = transport.send, [sends]

    async def counted(target: int, frame: Frame, copy: bool = False) -> None:
        if left[0] == 0:
            Controls(run, suspect_after_s).kill(node, restart is not None)
            if restart is not None:
                run.loop.call_later(restart.after_s, run.restart, node, restart.lose_state)
            raise NodeCrashed(f"node {node} was killed before its send number {sends}")
        left[0] -= 1
        await send(target, frame, copy)

    transport.send = counted  # type: ignore[method-assign]
