"""``tidings-node``: one node process, for launchers that start nodes one by one."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys

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
EXIT_OK, EXIT_FAILED, EXIT_COORDINATOR_LOST = 0, 1, 3


def run_node(run: str, node: int, coordinator: str, host: str) -> int:
    """Take part in a run; the exit code."""
    from tidings.runtime.control import CoordinatorLost
    from tidings.runtime.log import configure, get_logger
    from tidings.runtime.process import NodeProcess

    configure(run=run, node=node)
    log = get_logger()
    signal.signal(signal.SIGTERM, _exit_now)
    try:
        asyncio.run(NodeProcess(run, node, coordinator, host).main())
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


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="tidings-node", description="One node of a Tidings run; started by a launcher."
    )
    parser.add_argument("--run", required=True, help="the run's id")
    parser.add_argument("--node", required=True, type=int, help="this node's number")
    parser.add_argument("--coordinator", required=True, help="host:port of the coordinator")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    options = parser.parse_args(argv)
    if any(os.environ.get(name) != value for name, value in ONE_THREAD.items()):
        # too late for this process: its libraries have read them
        arguments = [sys.executable, "-m", "tidings.runtime.main", *(argv or sys.argv[1:])]
        os.execve(sys.executable, arguments, os.environ | ONE_THREAD)
    return run_node(options.run, options.node, options.coordinator, options.host)


if __name__ == "__main__":
    sys.exit(main())
