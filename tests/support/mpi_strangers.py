"""Two nodes and a stranger: ``mpiexec -n 3 python mpi_strangers.py DIR``.

The stranger, rank 2, tries to get in while the nodes connect; node 1 sends an oversized message
when all is over. Each rank writes what it has found to ``DIR/RANK.json``; the nodes' plans are
``DIR/plans``.
"""

from __future__ import annotations

import asyncio
import json
import pickle
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from support.mpi_ranks import DEADLINE_S, Rank, together
from tidings.api import Weights
from tidings.runtime.parts import Parts
from tidings.runtime.plan import NodePlan
from tidings.transports.identity import Identity
from tidings.transports.io_thread import IoThread
from tidings.transports.mpi_in import CHUNK, FRAME, HELLO, WELCOME, hello
from tidings.transports.mpi_thread import MpiThread, world


class Neighbor(Rank):
    """A node; number 1 breaks its link to node 0 in the end."""

    met = 0

    async def _together(self) -> None:
        self.met += 1
        if self.met == 4 and self.plan.node == 1:
            cut = asyncio.Event()
            self.transport.suspect = lambda peer, dead: cut.set()
            too_much = self.node.codec.max_frame_bytes + 1
            self.mpi.send(0, CHUNK, bytes(too_much))
            await cut.wait()
        await super()._together()


class Ears:
    """Hears what the stranger is told."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def held(self) -> set[int]:
        return set()

    def take(self, rank: int, tag: int, size_bytes: int) -> memoryview:
        return memoryview(bytearray(size_bytes))

    def arrived(self, rank: int, tag: int, data: memoryview) -> None:
        assert tag == WELCOME
        self.heard.append(bytes(data).decode())

    def failed(self, rank: int) -> None:
        raise AssertionError(f"rank {rank} has died")


async def intrude(plan: NodePlan, mpi: MpiThread) -> list[str]:
    """What node 0 answers."""
    ears, codec = Ears(), Parts.of(plan).codec
    me = Identity(plan.run, mpi.rank, codec.digest)
    frame = codec.encode(Weights(torch.zeros(codec.dim)), 0).joined()
    mpi.attach(ears)
    await together(mpi)
    # without a word, too many words, no words, and as somebody else
    mpi.send(0, FRAME, frame)
    mpi.send(0, CHUNK, bytes(frame)[:100])
    mpi.send(0, HELLO, bytes(10_000))
    mpi.send(0, HELLO, b"let me in")
    for identity in (replace(me, node=1), replace(me, run="another"), me):
        mpi.send(0, HELLO, hello(identity))
    while len(ears.heard) < 4:
        await asyncio.sleep(0.005)
    # let in all the less for it
    mpi.send(0, FRAME, frame)
    for _ in range(4):
        await together(mpi)
    return ears.heard


async def main(directory: Path, io: IoThread, mpi: MpiThread) -> Any:
    """This rank's part."""
    plans = pickle.loads((directory / "plans").read_bytes())
    async with asyncio.timeout(DEADLINE_S):
        if mpi.rank == 2:
            return await intrude(plans[0], mpi)
        rank = Neighbor(plans[mpi.rank], io, mpi)
        found = await rank.run()
        return {"model": found["model"].tolist(), "refused": rank.transport.refused}


if __name__ == "__main__":
    torch.set_num_threads(1)
    where, thread, job = Path(sys.argv[1]), IoThread(), world()
    result = asyncio.run(main(where, thread, job))
    (where / f"{job.rank}.json").write_text(json.dumps(result))
    thread.stop()
    job.stop()
