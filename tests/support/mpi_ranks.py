"""The ranks of an MPI job that runs cases of tests: ``mpiexec -n N python mpi_ranks.py DIRECTORY``.

Each rank is a node of each case that has so many. Cases come as files, and so do the results, so
that the test process can compare them with the simulator's.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch

from support.recording import Recorder
from tidings.runtime.carrier import endpoint_of
from tidings.runtime.checkpoint import place_of
from tidings.runtime.node import RuntimeNode
from tidings.runtime.parts import Parts
from tidings.runtime.plan import NodePlan
from tidings.runtime.real_world import RealWorld
from tidings.transports.io_thread import IoThread, WallClock
from tidings.transports.mpi import MpiTransport
from tidings.transports.mpi_thread import MpiThread, world

DEADLINE_S = 60.0


class Rank:
    """One node of one case."""

    def __init__(self, plan: NodePlan, io: IoThread, mpi: MpiThread) -> None:
        self.plan, self.mpi, self.recorder = plan, mpi, Recorder()
        parts = Parts.of(plan)
        self.clock = WallClock(plan.time_scale)
        self.transport = MpiTransport(endpoint_of(plan, parts, self.clock, io), mpi)
        self.world = RealWorld(self.clock, self.transport, self.recorder.take)
        self.world.store = place_of(plan)
        self.node = RuntimeNode(plan, parts, self.world)

    async def run(self) -> dict[str, Any]:
        """From connecting to closing; what the node recorded and its model."""
        await self.transport.listen("")
        await self._together()
        failures = await self.transport.connect({j: f"mpi:{j}" for j in self.plan.links}, 10)
        assert not failures, failures
        await self._together()
        self.clock.restart()
        self.transport.restart()
        await self.node.begin()
        time_s = self.clock.now_s
        # nobody ends while others still wait for its answers
        await self._together()
        await self.node.end()
        await self.world.evaluated()
        await self.transport.flush()
        await self._together()
        final = self.node.final()
        self.world.close()
        await self.transport.close()
        await self._together()
        return {
            "final": final.SerializeToString(),
            "model": self.node.model.numpy().copy(),
            "time_s": time_s,
            "events": [event.SerializeToString() for event in self.recorder.events],
            "faults": [change.SerializeToString() for change in self.recorder.faults],
            "rows": [row.SerializeToString() for row in self.recorder.rows],
        }

    async def _together(self) -> None:
        await together(self.mpi)


async def together(mpi: MpiThread) -> None:
    """Wait for all ranks."""
    assert await asyncio.to_thread(mpi.barrier, DEADLINE_S), "the others do not come"


async def case(plans: list[NodePlan], io: IoThread, mpi: MpiThread) -> dict[str, Any] | None:
    """This rank's part of a case."""
    async with asyncio.timeout(DEADLINE_S):
        if mpi.rank < len(plans):
            return await Rank(plans[mpi.rank], io, mpi).run()
        # as often as the others meet
        for _ in range(5):
            await together(mpi)
        return None


def main(directory: Path) -> None:
    """Run cases until there is a file called ``stop``."""
    torch.set_num_threads(1)
    mpi, io = world(), IoThread()
    number = 0
    try:
        while not (directory / "stop").exists():
            file = directory / f"{number}.case"
            if not file.exists():
                time.sleep(0.005)
                continue
            found = asyncio.run(case(pickle.loads(file.read_bytes()), io, mpi))
            part = directory / f"{number}.{mpi.rank}.part"
            part.write_bytes(pickle.dumps(found))
            part.rename(part.with_suffix(".result"))
            number += 1
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        # the others would wait for this rank
        os._exit(1)
    io.stop()
    mpi.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
