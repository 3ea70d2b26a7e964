"""Node processes on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from dataclasses import dataclass
from typing import Any

from tidings.errors import RunError
from tidings.runtime.doors import door
from tidings.runtime.main import ONE_THREAD
from tidings.units import Duration
from tidings_coordinator.launchers.base import (
    Exit,
    Launcher,
    NodeGroup,
    Order,
    check_port,
    launchers,
)
from tidings_coordinator.launchers.capabilities import Capabilities, Shown

#: importing torch on a cold disk takes its time
_READY_S = 120.0
_LINE_LIMIT = 1 << 20
#: the fork server answers at once, and kills and reaps quickly
_ANSWER_S = 10.0


_SIGNALS = "tests/process/test_signals.py::test_local_nodes_are_frozen_thawed_and_killed"


@launchers.register("local")
@dataclass(frozen=True)
class Local(Launcher):
    """One process a node on this machine, talking gRPC over the loopback interface."""

    #: where nodes and coordinator listen
    host: str = "127.0.0.1"
    #: the coordinator's port; 0 for any free one
    port: int = 0
    #: how long nodes go on without a coordinator, for one that `tidings adopt` starts in its place
    grace: Duration = Duration(0.0)

    can = Capabilities(
        runs=Shown("tests/process/test_runs.py::test_processes_and_simulator_agree_bit_for_bit"),
        abilities={
            "tls": Shown("tests/process/test_security.py::test_strangers_at_every_door_of_a_run"),
            "kill": Shown(_SIGNALS),
            "pause": Shown(_SIGNALS),
            "outlive": Shown(
                "tests/process/test_adopt.py::test_local_nodes_are_taken_over_with_their_faults"
            ),
            "restart": Shown(
                "tests/process/test_restart.py"
                "::test_a_killed_node_comes_back_and_replicas_agree_again"
            ),
        },
    )

    def __post_init__(self) -> None:
        check_port(self.port)

    def group(self) -> NodeGroup:
        """A fork server and its children."""
        return LocalNodes(self.host)

    @property
    def grace_s(self) -> float:
        """As long as the experiment says."""
        return float(self.grace)


class LocalNodes(NodeGroup):
    """Children of a fork server (see tidings.runtime.forkserver).

    All die with this process, or go on for as long as the order's grace.
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self._server: asyncio.subprocess.Process | None = None
        #: to the fork server
        self._line: asyncio.StreamWriter | None = None
        self._reader: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._order: Order | None = None
        self.exits = asyncio.Queue()
        #: process ids of the nodes
        self.pids: dict[int, int] = {}

    async def start(self, order: Order) -> None:
        """Start the fork server, then all nodes from it."""
        await self._start_server(order)
        self._order = order
        self._tell(start=[self._child(node, order) for node in range(order.nodes)])

    async def _start_server(self, order: Order) -> None:
        options = {
            "run": order.run,
            "coordinator": order.coordinator,
            "protocol": order.protocol,
            "problem": order.problem,
            "parent": os.getpid(),
            "grace_s": order.grace_s,
            "door": str(order.directory.resolve()),
        }
        log = order.logs / "forkserver.log"
        with log.open("ab") as errors:
            self._server = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tidings.runtime.forkserver",
                json.dumps(options),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                env=os.environ | ONE_THREAD | dict(order.join),
                limit=_LINE_LIMIT,
                # Ctrl-C is for the coordinator, which then ends the nodes in order
                start_new_session=True,
            )
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._line = self._server.stdin
        self._reader = asyncio.create_task(self._read(self._server.stdout))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ready.wait(), _READY_S)
        if self._server.returncode is not None or not self._ready.is_set():
            raise RunError(f"the node server did not start; see {log}")

    async def adopt(self, order: Order) -> None:
        """Find the fork server that another process has started."""
        self._order = order
        try:
            with door(order.directory) as path:
                reader, self._line = await asyncio.open_unix_connection(path, limit=_LINE_LIMIT)
        except OSError as error:
            raise RunError(
                f"the nodes of {order.directory} are not there any more: {error.strerror}"
            ) from error
        self._reader = asyncio.create_task(self._read(reader))
        await asyncio.wait_for(self._ready.wait(), _ANSWER_S)

    def _child(self, node: int, order: Order) -> dict[str, Any]:
        """What the fork server is told of a node."""
        return {"node": node, "log": str(order.logs / f"node-{node:04d}.log"), "host": self._host}

    async def signal(self, node: int, number: int) -> None:
        """Send a node process a signal."""
        self._tell(signal=number, node=node)

    async def restart(self, node: int) -> None:
        """Fork once more."""
        assert self._order is not None
        self._tell(start=[self._child(node, self._order)])

    async def stop(self) -> None:
        """Tell the fork server: it kills and reaps its children, and ends."""
        if self._line is None or self._reader is None:
            return
        self._tell(stop=True)
        # it hangs up with its end
        await asyncio.wait([self._reader], timeout=_ANSWER_S)
        self._line.close()
        if self._server is not None:
            try:
                await asyncio.wait_for(self._server.wait(), _ANSWER_S)
            except TimeoutError:
                self._server.kill()
                await self._server.wait()
        await self._reader
        self._server = self._line = None

    def _tell(self, **command: object) -> None:
        if self._line is not None:
            self._line.write(json.dumps(command).encode() + b"\n")

    async def _read(self, lines: asyncio.StreamReader) -> None:
        """Take down what the server says, until it ends."""
        async for line in lines:
            message = json.loads(line)
            if "ready" in message:
                self._ready.set()
            elif "started" in message:
                self.pids[message["started"]] = message["pid"]
            elif "exited" in message:
                self.exits.put_nowait(Exit(message["exited"], message["code"]))
        self._ready.set()
