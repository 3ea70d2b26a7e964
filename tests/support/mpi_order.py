"""A job of two ranks over a link that has no shape most of the time: ``mpiexec -n 2 python
mpi_order.py``.

Rank 0 sends long and short messages, more than may be on their way at once, with the link slow for
some of them; rank 1 prints the numbers of those that came, in that order.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

from tidings.api import Protocol
from tidings.links.shape import LinkShape, NicShape
from tidings.transports.endpoint import Endpoint
from tidings.transports.identity import Identity
from tidings.transports.io_thread import IoThread, WallClock
from tidings.transports.mpi import MpiTransport
from tidings.transports.mpi_exit import end
from tidings.transports.mpi_thread import MpiThread, world
from tidings.v1 import data_pb2 as pb
from tidings.wire.codec import Codec

DIM = 1 << 22
#: bytes of filler, in turns; 12 of the long ones are four times what may be on its way
SIZES = (16 << 20, 1, 100_000)
MESSAGES = 36
#: numbers of the messages for which the link is slow
SLOW = range(12, 20)


async def take_part(mpi: MpiThread, io: IoThread) -> list[int]:
    """Send or receive everything; the numbers that came."""
    peer, shape = 1 - mpi.rank, LinkShape()
    codec = Codec(Protocol.parse({"kind": "d_psgd", "lr": 0.1}), DIM, 64 << 20)
    identity = Identity("order", mpi.rank, codec.digest)
    clock, reader = WallClock(), frozenset({peer})
    transport = MpiTransport(
        Endpoint(
            identity, {peer: shape}, NicShape(), reader, 0, clock, io, codec.check_length, 64 << 20
        ),
        mpi,
    )
    transport.suspect = lambda peer, dead: None
    came: list[int] = []
    done = asyncio.Event()

    def receive(source: int, frame: memoryview) -> None:
        probe = codec.decode(frame).probe
        assert probe is not None
        came.append(probe.number)
        if len(came) == MESSAGES:
            done.set()

    transport.receive = receive
    await transport.listen("")
    await asyncio.to_thread(mpi.barrier)
    assert not await transport.connect({peer: f"mpi:{peer}"}, 10)
    await asyncio.to_thread(mpi.barrier)
    if mpi.rank == 0:
        for number in range(MESSAGES):
            slow = replace(shape, delay_ns=5_000_000) if number in SLOW else shape
            transport.reshape(peer, slow)
            probe = pb.Probe(number=number)
            await transport.send(peer, codec.probe(probe, SIZES[number % len(SIZES)]))
        await transport.flush()
        assert transport.sequences == {peer: MESSAGES}
    else:
        await done.wait()
    await transport.close()
    await transport.leave()
    io.stop()
    return came


if __name__ == "__main__":
    job = world()
    numbers = asyncio.run(take_part(job, IoThread()))
    if job.rank == 1:
        print(json.dumps(numbers), flush=True)
    end(0)
