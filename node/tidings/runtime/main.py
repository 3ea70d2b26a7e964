"""``tidings-node``: one node process, for launchers that start nodes one by one."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from tidings.transports.mpi_exit import end
from tidings.transports.ranks import rank_of_environment

if TYPE_CHECKING:
    from tidings.runtime.process import Seat

#: Environment of a node process: one thread a node, for idle BLAS threads would spin. The libraries
#: read it when they are imported.
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # its handlers can hang in children; we fork before any gRPC object is made
    "GRPC_ENABLE_FORK_SUPPORT": "false",
}

#: exit codes of a node process
EXIT_OK, EXIT_FAILED, EXIT_REFUSED, EXIT_COORDINATOR_LOST = 0, 1, 2, 3


def run_node(seat: Seat) -> int:
    """Take part in a run; the exit code."""
    from tidings.errors import UserError
    from tidings.runtime.control import CoordinatorLost
    from tidings.runtime.log import configure, get_logger
    from tidings.runtime.process import NodeProcess

    configure(run=seat.run, node=seat.node)
    log = get_logger()
    signal.signal(signal.SIGTERM, _exit_now)
    try:
        asyncio.run(NodeProcess(seat).main())
    except UserError as error:
        log.error("refused", reason=str(error))
        return EXIT_REFUSED
    except CoordinatorLost as error:
        log.error("lost", reason=str(error))
        return EXIT_COORDINATOR_LOST
    except Exception:
        log.exception("failed")
        return EXIT_FAILED
    log.info("left")
    return EXIT_OK


def _exit_now(number: int, frame: object) -> None:
    os._exit(128 + number)


def _options(argv: Sequence[str]) -> argparse.Namespace:
    """The command line; what it leaves out is taken from TIDINGS_RUN, TIDINGS_NODE and so on."""
    parser = argparse.ArgumentParser(
        prog="tidings-node",
        description="One node of a Tidings run; started by a launcher, or by you where the "
        "experiment says 'launcher: external'. With FILE: one rank of a whole run, as in "
        "mpiexec -n 9 tidings-node FILE, where rank 0 coordinates and the others are the nodes.",
        epilog="Each option can be given in the environment instead: TIDINGS_RUN, TIDINGS_NODE, "
        "TIDINGS_COORDINATOR, TIDINGS_HOST, TIDINGS_ADVERTISE, TIDINGS_METRICS_PORT, "
        "TIDINGS_LOGS, TIDINGS_PATIENCE. The number of a pod of an Indexed Job is its completion "
        "index. Where the run uses TLS, the node also needs TIDINGS_TOKEN and TIDINGS_CA, in the "
        "environment only.",
    )

    def add(name: str, default: str | None, text: str, kind: type = str) -> None:
        given = os.environ.get(f"TIDINGS_{name.upper().replace('-', '_')}", default)
        parser.add_argument(f"--{name}", default=given, type=kind, help=text)

    parser.add_argument("file", nargs="?", help="an experiment, for a whole run under mpiexec")
    add("run", "", "the run's id; left out, whatever run the coordinator has")
    completion = os.environ.get("JOB_COMPLETION_INDEX")
    add("node", completion, "this node's number, from 0; left out, its MPI rank", int)
    add("coordinator", None, "host:port of the coordinator")
    add("host", "127.0.0.1", "address to listen on")
    add("advertise", "", "host name under which others reach this node, if not --host")
    add("metrics-port", "0", "port of its Prometheus metrics; 0 for any free one", int)
    add("patience", "30", "wall seconds for which it dials a coordinator that is not there", float)
    add("logs", None, "directory for a file with what this node says, instead of standard error")
    parser.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE",
        help="with FILE: change a key of it; repeatable",
    )  # fmt: skip
    parser.add_argument("--out", help="with FILE: the run directory, to be made")
    parser.add_argument("--quiet", action="store_true", help="with FILE: no progress display")
    options = parser.parse_args(argv)
    if options.file is None:
        _complete(parser, options)
    return options


def _complete(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """What a single node must know; its number may come from whoever started it."""
    options.rank = options.node is None
    if options.rank:
        options.node = rank_of_environment()
    missing = [name for name in ("node", "coordinator") if getattr(options, name) is None]
    if missing:
        names = ", ".join(f"--{name}" for name in missing)
        parser.error(f"the following arguments are required: {names}")


def main(argv: list[str] | None = None) -> NoReturn:
    """Entry point."""
    arguments = sys.argv[1:] if argv is None else argv
    options = _options(arguments)
    if any(os.environ.get(name) != value for name, value in ONE_THREAD.items()):
        # too late for this process: its libraries have read them
        command = [sys.executable, "-m", "tidings.runtime.main", *arguments]
        os.execve(sys.executable, command, os.environ | ONE_THREAD)
    if options.file is not None:
        from tidings.runtime.mpi_job import take_part

        end(take_part(options))
    from tidings.runtime.process import Seat

    if options.logs:
        if options.rank:
            from tidings.runtime.guard import stand_guard

            stand_guard()(options.logs, options.node)
        log_to(options.logs, options.node)
    seat = Seat(
        run=options.run,
        node=options.node,
        coordinator=options.coordinator,
        host=options.host,
        advertise=options.advertise,
        metrics_port=options.metrics_port,
        patience=options.patience,
    )
    end(run_node(seat))


def log_to(directory: str, node: int) -> None:
    """Send what this process says from now on to the node's own file."""
    # ranks of one job need not share a file system
    os.makedirs(directory, exist_ok=True)
    path = os.path.join(directory, f"node-{node:04d}.log")
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)


if __name__ == "__main__":
    main()
