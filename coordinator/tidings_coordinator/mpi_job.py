"""The coordinator of ``mpiexec -n N+1 tidings-node FILE``: a process that rank 0 has started."""

from __future__ import annotations

import argparse
import os
import select
import socket
import sys
import threading
from pathlib import Path

from tidings.errors import TidingsError, UserError
from tidings_coordinator.experiment.load import load
from tidings_coordinator.launchers import mpi as launcher
from tidings_coordinator.showing import run_one


def coordinate(size: int, options: argparse.Namespace) -> int:
    """Run the experiment with the job's other ranks as its nodes; exit codes as of ``tidings``."""
    file = Path(options.file)
    try:
        experiment = load(file, ["launcher=mpi", *options.overrides])
        if not isinstance(experiment.launcher, launcher.Mpi):
            raise UserError("launcher: the ranks of an MPI job are nodes of the launcher 'mpi'")
        if size != experiment.nodes + 1:
            raise UserError(
                f"nodes: {experiment.nodes} nodes and a coordinator need "
                f"{experiment.nodes + 1} ranks, this job has {size}"
            )
        out = Path(options.out) if options.out else None
        return run_one(experiment, file, out, options.quiet).exit_code
    except TidingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1


def _outlive(line: socket.socket) -> None:
    """Once rank 0 is gone, so is mpiexec, which has taken what this process says."""
    hung_up = select.poll()
    hung_up.register(line, select.POLLRDHUP)
    hung_up.poll()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


def main(argv: list[str] | None = None) -> int:
    """``python -m tidings_coordinator.mpi_job LINE FILE``; rank 0 holds its other end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("line", type=int)
    parser.add_argument("file")
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--out")
    parser.add_argument("--quiet", action="store_true")
    options = parser.parse_args(argv)
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    launcher.JOB = line = socket.socket(fileno=options.line)
    # its first words say how many ranks there are, once they have all come
    with line.makefile("rb") as said:
        size = said.readline()
    if not size:
        return 1
    threading.Thread(target=_outlive, args=[line], daemon=True).start()
    return coordinate(int(size), options)


if __name__ == "__main__":
    sys.exit(main())
