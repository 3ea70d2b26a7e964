"""Goodput of a Tidings link over MPI against raw mpi4py; the ranks of ``transport.py --mpi``.

Raw: rank 0 keeps a window of Isend calls under way, rank 1 receives by Improbe and Irecv, both on
numpy memory, both calling MPI without a pause. Tidings: the same payloads as ``Weights`` messages
through codec, pacer and transport, on a link without shaping. The two take turns in one job after
another on the same machine. Idle: what a rank with an open link and nothing to do costs.

    mpiexec -n 2 python benchmarks/transport_mpi.py raw SIZE MESSAGES
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

MIB = 1 << 20
#: (name, payload bytes, messages); the bound is for messages from 1 MiB
CASES = (("16 MiB", 16 * MIB, 40), ("1 MiB", MIB, 400), ("1 KiB", 1024, 20_000))
_WINDOW = 8
_IDLE_S = 5.0
_TIMEOUT_S = 300.0


# -- raw ---------------------------------------------------------------------------------------


def raw(size: int, messages: int) -> float | None:
    """Messages per second at rank 1; None at rank 0."""
    import numpy as np
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    comm.Barrier()
    if comm.Get_rank() == 0:
        payload = np.frombuffer(os.urandom(size), dtype=np.uint8)
        under_way: deque[MPI.Request] = deque()
        for _ in range(messages):
            if len(under_way) == _WINDOW:
                under_way.popleft().Wait()
            under_way.append(comm.Isend([payload, MPI.BYTE], 1, 7))
        MPI.Request.Waitall(list(under_way))
        return None
    began, status = 0.0, MPI.Status()
    for _ in range(messages):
        while (message := comm.Improbe(0, 7, status)) is None:
            pass
        buffer = np.empty(status.Get_count(MPI.BYTE), dtype=np.uint8)
        message.Irecv([buffer, MPI.BYTE]).Wait()
        began = began or time.perf_counter()
    return (messages - 1) / (time.perf_counter() - began)


# -- Tidings -----------------------------------------------------------------------------------


def make(size: int) -> tuple[Any, Any, Any, Any]:
    """Transport, codec, I/O thread and MPI of this rank."""
    from tidings.api import Protocol
    from tidings.links.shape import LinkShape, NicShape
    from tidings.transports.endpoint import Endpoint
    from tidings.transports.identity import Identity
    from tidings.transports.io_thread import IoThread, WallClock
    from tidings.transports.mpi import MpiTransport
    from tidings.transports.mpi_thread import world
    from tidings.wire.codec import Codec

    mpi, io = world(), IoThread()
    codec = Codec(Protocol.parse({"kind": "d_psgd", "lr": 0.1}), size // 4, 64 * MIB)
    peer = 1 - mpi.rank
    transport = MpiTransport(
        Endpoint(
            Identity("benchmark", mpi.rank, codec.digest),
            {peer: LinkShape()},
            NicShape(),
            frozenset({peer}),
            0,
            WallClock(),
            io,
            codec.check_length,
            codec.chunk_bytes,
        ),
        mpi,
    )
    transport.suspect = lambda peer, dead: None
    transport.receive = lambda source, frame: None
    return transport, codec, io, mpi


async def tidings(size: int, messages: int) -> float | None:
    """Messages per second at rank 1; with no messages, what idling costs, in CPU s/s."""
    import torch

    from tidings.api import Weights

    transport, codec, io, mpi = make(size)
    seen, began, done = 0, 0.0, asyncio.Event()

    def receive(source: int, frame: Any) -> None:
        nonlocal seen, began
        assert codec.decode(frame).message.x.numel() == size // 4
        began = began or time.perf_counter()
        seen += 1
        if seen == messages:
            done.set()

    transport.receive = receive
    await transport.listen("")
    await asyncio.to_thread(mpi.barrier)
    assert not await transport.connect({1 - mpi.rank: f"mpi:{1 - mpi.rank}"}, 10)
    await asyncio.to_thread(mpi.barrier)
    result = None
    if messages == 0:
        before_s, wall_s = time.process_time(), time.perf_counter()
        await asyncio.sleep(_IDLE_S)
        result = (time.process_time() - before_s) / (time.perf_counter() - wall_s)
    elif mpi.rank == 0:
        x = torch.randn(size // 4)
        for number in range(messages):
            await transport.send(1, codec.encode(Weights(x), number))
        await transport.flush()
    else:
        await done.wait()
        result = (messages - 1) / (time.perf_counter() - began)
    await transport.close()
    await asyncio.to_thread(mpi.stop)
    io.stop()
    return result


# -- both --------------------------------------------------------------------------------------


def measure(mpiexec: str, kind: str, size: int, messages: int) -> float:
    """What rank 1 of a job of two has found."""
    options = ["--map-by", ":OVERSUBSCRIBE", "--bind-to", "none"] if _is_open_mpi(mpiexec) else []
    command = [mpiexec, *options, "-n", "2", sys.executable, __file__, kind]
    environment = os.environ | {"OMPI_ALLOW_RUN_AS_ROOT": "1"}
    environment |= {"OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    done = subprocess.run(
        [*command, str(size), str(messages)],
        capture_output=True,
        text=True,
        check=True,
        timeout=_TIMEOUT_S,
        env=environment,
    )
    return float(done.stdout.split("found ")[1].split()[0])


def _is_open_mpi(mpiexec: str) -> bool:
    version = subprocess.run(
        [mpiexec, "--version"], capture_output=True, text=True, check=False, timeout=30
    )
    return "Open MPI" in version.stdout + version.stderr


def compare(repeats: int) -> dict[str, Any]:
    """Print both and their ratio for each size, and what idling costs."""
    beside = Path(sys.executable).with_name("mpiexec")
    mpiexec = str(beside) if beside.exists() else shutil.which("mpiexec")
    if mpiexec is None:
        sys.exit("--mpi needs mpiexec: pip install 'tidings[mpich]'")
    report: dict[str, Any] = {"mpi": "openmpi" if _is_open_mpi(mpiexec) else "mpich"}
    for name, size, messages in CASES:
        pairs = [
            (
                measure(mpiexec, "raw", size, messages),
                measure(mpiexec, "tidings", size, messages),
            )
            for _ in range(repeats)
        ]
        ratio = statistics.median(ours / base for base, ours in pairs)
        base, ours = (statistics.median(values) for values in zip(*pairs, strict=True))
        print(
            f"{name:>7}: raw {base:9.1f} msg/s {base * size / 1e6:7.1f} MB/s   "
            f"tidings {ours:9.1f} msg/s {ours * size / 1e6:7.1f} MB/s   ratio {ratio:.2f}"
        )
        report[name] = {"raw_per_s": base, "tidings_per_s": ours, "ratio": ratio}
    idle = measure(mpiexec, "tidings", MIB, 0)
    print(f"   idle: a rank with an open link uses {idle:.3f} CPU s per second")
    return report | {"idle_cpu": idle}


def main() -> None:
    """One rank of one measurement."""
    kind, size, messages = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    found = raw(size, messages) if kind == "raw" else asyncio.run(tidings(size, messages))
    if found is not None:
        print(f"found {json.dumps(found)}", flush=True)


if __name__ == "__main__":
    main()
