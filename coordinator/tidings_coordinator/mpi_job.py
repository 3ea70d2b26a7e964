"""Rank 0 of ``mpiexec -n N+1 tidings-node FILE``: the coordinator of the job's other ranks."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from tidings.errors import TidingsError, UserError
from tidings.transports.mpi_thread import MpiThread
from tidings_coordinator.cli import run_one
from tidings_coordinator.experiment.load import load
from tidings_coordinator.launchers import mpi as launcher

_ANNOUNCE_S = 60.0


def coordinate(
    job: MpiThread, file: Path, overrides: Sequence[str], out: Path | None, quiet: bool
) -> int:
    """Run the experiment with the other ranks as its nodes; the exit code, as of ``tidings``."""
    launcher.JOB = job
    try:
        experiment = load(file, ["launcher=mpi", *overrides])
        if not isinstance(experiment.launcher, launcher.Mpi):
            raise UserError("launcher: the ranks of an MPI job are nodes of the launcher 'mpi'")
        if job.size != experiment.nodes + 1:
            raise UserError(
                f"nodes: {experiment.nodes} nodes and a coordinator need "
                f"{experiment.nodes + 1} ranks, this job has {job.size}"
            )
        return run_one(experiment, file, out, quiet).exit_code
    except TidingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    finally:
        if not job.announced:
            # the others wait to be told where to go
            job.broadcast(json.dumps({}).encode(), _ANNOUNCE_S)
