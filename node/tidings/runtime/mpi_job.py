"""A whole run as one MPI job: ``mpiexec -n N+1 tidings-node FILE``.

Rank 0 has the run conducted by a process of its own, which mpiexec does not know: where mpiexec
kills all ranks because one has died, the coordinator stays and writes down what has happened.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import signal
import socket
import subprocess
import sys

from tidings.errors import TidingsError, UserError
from tidings.runtime.guard import stand_guard
from tidings.runtime.main import EXIT_FAILED, EXIT_OK, log_to, run_node
from tidings.transports.mpi_thread import MpiThread, world
from tidings.transports.ranks import rank_of_environment

#: the coordinator's package is not known here; only rank 0 needs it
_COORDINATOR = "tidings_coordinator.mpi_job"

EXIT_USAGE = 2
_ANNOUNCE_S = 600.0


def take_part(options: argparse.Namespace) -> int:
    """Be the coordinator (rank 0) or node rank - 1; the exit code."""
    rank = rank_of_environment()
    guard = stand_guard() if rank else None
    if rank:
        # while the coordinator does the same; rank 0 does without torch
        importlib.import_module("tidings.runtime.process")
    # it loads its libraries while MPI begins
    coordinator = Coordinator(options) if rank == 0 else None
    try:
        job = world()
        if job.size < 2:
            raise UserError(
                "tidings-node FILE is started by mpiexec, with one rank more than there are nodes; "
                "for a run from one command: tidings run --launcher mpi"
            )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USAGE
    if coordinator is not None:
        return _leave(job, coordinator.serve(job))
    # rank 0 hears of Ctrl-C and ends the run in order
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        words = json.loads(job.broadcast(b"", _ANNOUNCE_S))
    except TidingsError as error:
        print(f"error: rank {job.rank}: {error}", file=sys.stderr)
        return EXIT_FAILED
    if not words:
        return _leave(job, EXIT_USAGE)
    node = job.rank - 1
    if guard is not None:
        guard(words["logs"], node)
    log_to(words["logs"], node)
    os.environ.update(words["join"])
    from tidings.runtime.process import Seat

    code = run_node(Seat(words["run"], node, words["coordinator"], options.host, first_rank=1))
    # rank 0 says how the run has ended; a node that was called off has not failed
    return EXIT_OK if job.left else code


class Coordinator:
    """The process that conducts the run; ends when this process does."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._line, there = socket.socketpair()
        command = [sys.executable, "-m", _COORDINATOR, str(there.fileno()), options.file]
        command += [f"--set={override}" for override in options.overrides]
        command += [f"--out={options.out}"] if options.out else []
        command += ["--quiet"] if options.quiet else []
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            pass_fds=[there.fileno()],
            # out of reach of what mpiexec does to its ranks
            start_new_session=True,
        )
        there.close()

    def serve(self, job: MpiThread) -> int:
        """Tell the other ranks where it is, and wait for it; its exit code."""
        words = b""
        with self._line.makefile("rb") as said, contextlib.suppress(OSError):
            self._line.sendall(f"{job.size}\n".encode())
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, self._pass_on)
            # nothing, where it has ended before it came to that
            words = said.readline()
        job.broadcast(words or b"{}", _ANNOUNCE_S)
        return self._process.wait()

    def _pass_on(self, number: int, frame: object) -> None:
        """Tell it; it knows whether a rank's death is behind that, or the user."""
        with contextlib.suppress(OSError):
            self._line.send(bytes([number]))


def _leave(job: MpiThread, code: int) -> int:
    job.stop()
    return code
