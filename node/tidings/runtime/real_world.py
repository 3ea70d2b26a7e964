"""The world of a node process: wall time, a thread that computes, one that evaluates."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tidings.links.imposed import ImposedLinks
from tidings.links.shape import LinkShape
from tidings.runtime.plan import ArmedFault
from tidings.runtime.world import World
from tidings.transports.base import Transport
from tidings.transports.io_thread import WallClock
from tidings.v1 import control_pb2 as pb
from tidings.v1 import records_pb2 as records

R = TypeVar("R")

#: evaluations that may wait for the evaluating thread before report() waits for it
_MAX_PENDING = 2


class RealWorld(World):
    """Real time and real computing. Records go where ``record`` sends them: to the coordinator."""

    native = True

    def __init__(
        self,
        clock: WallClock,
        transport: Transport,
        record: Callable[[pb.NodeMessage], None],
    ) -> None:
        self.clock = clock
        self.time_scale = clock.time_scale
        self.transport = transport
        self._record = record
        # threads of their own, so that the loop goes on answering while the node computes
        self._computer = ThreadPoolExecutor(1, "tidings-compute")
        self._evaluator = ThreadPoolExecutor(1, "tidings-evaluate")
        self._slots = asyncio.Semaphore(_MAX_PENDING)
        self._pending: set[asyncio.Task[None]] = set()
        #: the latest finished evaluation, for the metrics
        self.latest: records.Evaluation | None = None
        #: where the kernel imposes the links
        self.imposed: ImposedLinks | None = None

    async def compute(self, work: Callable[[], R], cost_s: float | None, factor: float) -> R:
        began = time.monotonic()
        result = await asyncio.get_running_loop().run_in_executor(self._computer, work)
        took_s = time.monotonic() - began
        if cost_s is None:
            rest_s = (factor - 1.0) * took_s
        else:
            rest_s = cost_s * self.time_scale - took_s
        if rest_s > 0:
            await asyncio.sleep(rest_s)
        return result

    async def evaluate(self, work: Callable[[], records.Evaluation]) -> None:
        await self._slots.acquire()
        task = asyncio.create_task(self._evaluate(work))
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    async def _evaluate(self, work: Callable[[], records.Evaluation]) -> None:
        try:
            row = await asyncio.get_running_loop().run_in_executor(self._evaluator, work)
        finally:
            self._slots.release()
        self.latest = row
        self._record(pb.NodeMessage(evaluation=row))

    async def evaluated(self) -> None:
        """Until all evaluations that were asked for are recorded; raises what failed."""
        if self._pending:
            await asyncio.gather(*self._pending)

    async def aside(self, work: Callable[[], R]) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._evaluator, work)

    def reshape(self, target: int, shape: LinkShape) -> None:
        if self.imposed is None:
            super().reshape(target, shape)
        else:
            # some milliseconds in which the node does nothing else
            self.imposed.reshape(target, shape)

    def wire_bytes(self, target: int) -> int | None:
        return None if self.imposed is None else self.imposed.wire_bytes(target)

    def fault(self, change: records.FaultChange) -> None:
        self._record(pb.NodeMessage(fault=change))

    def arrived(self, armed: ArmedFault, round_: int) -> None:
        here = pb.Arrived(
            event=armed.event, occurrence=armed.occurrence, round=round_, time_s=self.clock.now_s
        )
        self._record(pb.NodeMessage(arrived=here))

    def event(self, event: records.Event) -> None:
        self._record(pb.NodeMessage(event=event))

    def close(self) -> None:
        """End the threads."""
        self._computer.shutdown(wait=False, cancel_futures=True)
        self._evaluator.shutdown(wait=False, cancel_futures=True)
