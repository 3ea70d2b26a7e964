"""A whole run as one MPI job: ``mpiexec -n N+1 tidings-node FILE``."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import sys
from pathlib import Path

from tidings.errors import TidingsError, UserError
from tidings.runtime.main import EXIT_FAILED, EXIT_OK, log_to, run_node
from tidings.runtime.process import Seat
from tidings.transports.mpi_thread import MpiThread, world

#: the coordinator's package is not known here; only rank 0 needs it
_COORDINATOR = "tidings_coordinator.mpi_job"

EXIT_USAGE = 2
_ANNOUNCE_S = 600.0


def take_part(options: argparse.Namespace) -> int:
    """Be the coordinator (rank 0) or node rank - 1; the exit code."""
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
    if job.rank == 0:
        return _leave(job, _coordinate(job, options))
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
    log_to(words["logs"], node)
    os.environ.update(words["join"])
    code = run_node(Seat(words["run"], node, words["coordinator"], options.host, first_rank=1))
    # rank 0 says how the run has ended; a node that was called off has not failed
    return EXIT_OK if job.left else code


def _coordinate(job: MpiThread, options: argparse.Namespace) -> int:
    try:
        coordinator = importlib.import_module(_COORDINATOR)
    except ImportError as error:
        print(f"error: rank 0 needs {_COORDINATOR}: {error}", file=sys.stderr)
        job.broadcast(b"{}", _ANNOUNCE_S)
        return EXIT_USAGE
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    out = Path(options.out) if options.out else None
    code: int = coordinator.coordinate(
        job, Path(options.file), options.overrides, out, options.quiet
    )
    return code


def _leave(job: MpiThread, code: int) -> int:
    job.stop()
    return code
