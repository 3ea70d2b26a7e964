"""The conformance cases as the ranks of an MPI job: ``mpiexec -n N python -m support.mpi_ranks``.

Each rank takes its plans, runs them one after the other over one MPI, and rank 0 writes what came
out, so that the test process can compare it with the simulator.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from support.recording import Recorder
from tidings.runtime.node import RuntimeNode
from tidings.runtime.parts import Parts
from tidings.runtime.plan import NodePlan
from tidings.runtime.real_world import RealWorld
from tidings.transports.identity import Identity
from tidings.transports.io_thread import IoThread, WallClock
from tidings.transports.mpi import MpiTransport
from tidings.transports.mpi_thread import MpiThread, world
from tidings.v1 import control_pb2 as pb

DEADLINE_S = 60.0


class Rank:
    """One node of one case."""

    def __init__(self, plan: NodePlan, io: IoThread, mpi: MpiThread, recorder: Recorder) -> None:
        self.plan, self.mpi, self.recorder = plan, mpi, recorder
        parts = Parts.of(plan)
        self.clock = WallClock(plan.time_scale)
        self.transport = MpiTransport(
            Identity(plan.run, plan.node, parts.codec.digest),
            plan.links,
            plan.nic,
            frozenset(plan.in_neighbors),
            plan.seed,
            self.clock,
            io,
            parts.codec.check_length,
            plan.chunk_bytes,
            mpi,
        )
        self.world = RealWorld(self.clock, self.transport, self._record)
        self.node = RuntimeNode(plan, parts, self.world)

    def _record(self, message: pb.NodeMessage) -> None:
        if message.WhichOneof("kind") == "evaluation":
            self.recorder.evaluation(message.evaluation)
        else:
            self.recorder.event(message.event)

    async def barrier(self) -> None:
        assert await asyncio.to_thread(self.mpi.barrier, DEADLINE_S)

    async def run(self) -> dict[str, Any]:
        """From connecting to closing; the final record, the model and the time."""
        await self.transport.listen("")
        await self.barrier()
        failures = await self.transport.connect({j: f"mpi:{j}" for j in self.plan.links}, 10)
        assert not failures, failures
        await self.barrier()
        self.clock.restart()
        self.transport.restart()
        await self.node.begin()
        time_s = self.clock.now_s
        # nobody ends while others still wait for its answers
        await self.barrier()
        await self.node.end()
        await self.world.evaluated()
        await self.transport.flush()
        final = self.node.final()
        await self.barrier()
        self.world.close()
        await self.transport.close()
        await self.barrier()
        return {
            "final": final.SerializeToString(),
            "model": self.node.model.numpy().copy(),
            "time_s": time_s,
            "events": [event.SerializeToString() for event in self.recorder.events],
            "rows": [row.SerializeToString() for row in self.recorder.rows],
        }


def take_part(cases: Sequence[Sequence[NodePlan]], mpi: MpiThread, out: Path) -> None:
    """Run this rank's node of every case."""
    torch.set_num_threads(1)
    io = IoThread()

    async def one(plan: NodePlan) -> dict[str, Any]:
        async with asyncio.timeout(DEADLINE_S):
            return await Rank(plan, io, mpi, Recorder()).run()

    for number, plans in enumerate(cases):
        found = asyncio.run(one(plans[mpi.rank]))
        (out / f"{number}-{mpi.rank}.pickle").write_bytes(pickle.dumps(found))
    io.stop()


def main(job: Path) -> None:
    """Take the cases from ``job``/cases.pickle, leave the results beside it."""
    sys.modules["support.mpi_ranks"] = sys.modules["__main__"]
    mpi = world()
    cases = pickle.loads((job / "cases.pickle").read_bytes())
    try:
        take_part(cases, mpi, job)
    except BaseException:
        import traceback

        traceback.print_exc()
        # the others would wait for this rank
        sys.stderr.flush()
        os._exit(1)
    mpi.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
