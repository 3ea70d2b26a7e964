"""A process between a launcher and the rank it started, to write down how the rank ended.

mpiexec and srun end all ranks when one has died, so that afterwards nobody can tell who was first.
The guard ends after its rank, as its rank did, and only once it has written that down: whoever is
killed for that death is killed later.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from tidings.runtime.forkserver import die_with_parent


@dataclass(frozen=True)
class RankExit:
    """How a rank ended."""

    node: int
    #: exit code, or minus the number of the signal that killed it
    code: int
    #: whether it had been asked to end before, as mpiexec asks all ranks when one has died
    told: bool
    #: wall time
    time_s: float


def path_in(logs: Path, node: int) -> Path:
    """Where a node's guard writes."""
    return logs / f"node-{node:04d}.exit"


def read_exits(logs: Path) -> list[RankExit]:
    """Who has ended so far, by time."""
    found = [RankExit(**json.loads(file.read_text())) for file in logs.glob("node-*.exit")]
    return sorted(found, key=lambda ended: ended.time_s)


def stand_guard() -> Callable[[str, int], None]:
    """Go on as a child; to be called before there are threads.

    What is returned tells the guard where the logs are and which node this is; of a rank that ends
    before it is called nothing is written down.
    """
    read, write = os.pipe()
    guard = os.getpid()
    # until the guard can pass it on
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    child = os.fork()
    if child:
        os.close(write)
        _watch(child, read)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    die_with_parent(guard)
    os.close(read)
    return lambda logs, node: _tell(write, logs, node)


def _tell(pipe: int, logs: str, node: int) -> None:
    os.write(pipe, json.dumps({"logs": logs, "node": node}).encode())


def _watch(child: int, pipe: int) -> None:
    """Wait for the rank, write down how it ended, and end in the same way."""
    told = False

    def forward(number: int, frame: object) -> None:
        nonlocal told
        # not where it is dead already, and only its end has not been noticed yet
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            told = True
            os.kill(child, number)

    # of Ctrl-C the coordinator hears, and ends the run in order
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, forward)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    time_s = time.time()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if said := os.read(pipe, 1 << 16):
        where = json.loads(said)
        _write(Path(where["logs"]), RankExit(where["node"], code, told, time_s))
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code if code >= 0 else 128 - code)


def _write(logs: Path, ended: RankExit) -> None:
    path = path_in(logs, ended.node)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(asdict(ended)))
    part.rename(path)
