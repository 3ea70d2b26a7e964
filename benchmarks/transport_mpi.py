"""Goodput of a Tidings link over MPI against raw mpi4py; the ranks of ``transport.py --mpi``.

Raw: rank 0 keeps a window of Isend calls under way, rank 1 receives by Improbe and Irecv, both on
numpy memory, both calling MPI without a pause; rank 0 sends the same memory again and again.
Copied: the same, but each message is first copied from where the model is, as a sender must do
whose model goes on changing. Tidings: the same payloads as ``Weights`` messages through codec,
pacer and transport, on a link without shaping. They take turns in one job after another on the same
machine. Idle: what a rank with an open link and nothing to do costs.

Between ranks of one machine MPI goes through shared memory; ``--fabric tcp`` makes it use TCP over
loopback, as it would between machines without a faster network.

    mpiexec -n 2 python benchmarks/transport_mpi.py raw|copied|tidings SIZE MESSAGES
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
CASES = (("16 MiB", 16 * MIB, 200), ("1 MiB", MIB, 3000), ("1 KiB", 1024, 20_000))
_WINDOW = 8
_IDLE_S = 5.0
_TIMEOUT_S = 300.0
_KINDS = ("raw", "copied", "tidings")
#: what makes Open MPI use TCP between ranks of one machine, and MPICH
_TCP = ["--mca", "pml", "ob1", "--mca", "btl", "tcp,self", "--mca", "btl_tcp_if_include", "lo"]
_TCP_VARIABLES = {"MPIR_CVAR_NOLOCAL": "1", "FI_PROVIDER": "tcp"}


# -- raw ---------------------------------------------------------------------------------------


def raw(size: int, messages: int, copies: bool) -> float | None:
    """Messages per second at rank 1; None at rank 0, which may copy each message before."""
    import numpy as np
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    comm.Barrier()
    if comm.Get_rank() == 0:
        # copied: numpy's own memory is in large pages, as a tensor's is, and bytes are not
        payload = np.frombuffer(os.urandom(size), dtype=np.uint8).copy()
        buffers = [payload.copy() if copies else payload for _ in range(_WINDOW)]
        under_way: deque[MPI.Request] = deque()
        for number in range(messages):
            if len(under_way) == _WINDOW:
                under_way.popleft().Wait()
            buffer = buffers[number % _WINDOW]
            if copies:
                np.copyto(buffer, payload)
            under_way.append(comm.Isend([buffer, MPI.BYTE], 1, 7))
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


def measure(mpiexec: str, flavor: str, fabric: str, kind: str, size: int, messages: int) -> float:
    """What rank 1 of a job of two has found."""
    options = ["--map-by", ":OVERSUBSCRIBE", "--bind-to", "none"] if flavor == "openmpi" else []
    environment = os.environ | {"OMPI_ALLOW_RUN_AS_ROOT": "1"}
    environment |= {"OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    if fabric == "tcp":
        options += _TCP if flavor == "openmpi" else []
        environment |= {} if flavor == "openmpi" else _TCP_VARIABLES
    command = [mpiexec, *options, "-n", "2", sys.executable, __file__, kind]
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


def compare(repeats: int, fabric: str) -> dict[str, Any]:
    """Print all kinds and their ratios for each size, and what idling costs."""
    beside = Path(sys.executable).with_name("mpiexec")
    mpiexec = str(beside) if beside.exists() else shutil.which("mpiexec")
    if mpiexec is None:
        sys.exit("--mpi needs mpiexec: pip install 'tidings[mpich]'")
    flavor = "openmpi" if _is_open_mpi(mpiexec) else "mpich"
    report: dict[str, Any] = {"mpi": flavor, "fabric": fabric}
    for name, size, messages in CASES:
        rates = [
            {kind: measure(mpiexec, flavor, fabric, kind, size, messages) for kind in _KINDS}
            for _ in range(repeats)
        ]
        found = {
            f"{kind}_per_s": statistics.median(each[kind] for each in rates) for kind in _KINDS
        }
        for base in ("raw", "copied"):
            ratios = sorted(each["tidings"] / each[base] for each in rates)
            found[f"ratio_to_{base}"] = statistics.median(ratios)
            found[f"ratios_to_{base}"] = [round(ratio, 2) for ratio in ratios]
        print(
            f"{name:>7}: "
            + "   ".join(
                f"{kind} {found[f'{kind}_per_s'] * size / 1e6:.0f} MB/s" for kind in _KINDS
            )
            + f"   ratio {found['ratio_to_raw']:.2f}, to copied {found['ratio_to_copied']:.2f}",
            flush=True,
        )
        report[name] = found
    idle = measure(mpiexec, flavor, fabric, "tidings", MIB, 0)
    print(f"   idle: a rank with an open link uses {idle:.3f} CPU s per second")
    return report | {"idle_cpu": idle}


def main() -> None:
    """One rank of one measurement."""
    kind, size, messages = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    if kind == "tidings":
        found = asyncio.run(tidings(size, messages))
    else:
        found = raw(size, messages, copies=kind == "copied")
    if found is not None:
        print(f"found {json.dumps(found)}", flush=True)


if __name__ == "__main__":
    main()
