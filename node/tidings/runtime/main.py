"""``tidings-node``: one node process, for launchers that start nodes one by one."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING

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


def _options(argv: list[str] | None) -> argparse.Namespace:
    """The command line; what it leaves out is taken from TIDINGS_RUN, TIDINGS_NODE and so on."""
    parser = argparse.ArgumentParser(
        prog="tidings-node",
        description="One node of a Tidings run; started by a launcher, or by you where the "
        "experiment says 'launcher: external'.",
        epilog="Each option can be given in the environment instead: TIDINGS_RUN, TIDINGS_NODE, "
        "TIDINGS_COORDINATOR, TIDINGS_HOST, TIDINGS_ADVERTISE. Where the run uses TLS, the node "
        "also needs TIDINGS_TOKEN and TIDINGS_CA, in the environment only.",
    )

    def add(name: str, default: str | None, text: str, kind: type = str) -> None:
        given = os.environ.get(f"TIDINGS_{name.upper()}", default)
        parser.add_argument(
            f"--{name}", default=given, required=given is None, type=kind, help=text
        )

    add("run", "", "the run's id; left out, whatever run the coordinator has")
    add("node", None, "this node's number, from 0", int)
    add("coordinator", None, "host:port of the coordinator")
    add("host", "127.0.0.1", "address to listen on")
    add("advertise", "", "host name under which others reach this node, if not --host")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    options = _options(argv)
    if any(os.environ.get(name) != value for name, value in ONE_THREAD.items()):
        # too late for this process: its libraries have read them
        arguments = [sys.executable, "-m", "tidings.runtime.main", *(argv or sys.argv[1:])]
        os.execve(sys.executable, arguments, os.environ | ONE_THREAD)
    from tidings.runtime.process import Seat

    return run_node(Seat(**vars(options)))


if __name__ == "__main__":
    sys.exit(main())
