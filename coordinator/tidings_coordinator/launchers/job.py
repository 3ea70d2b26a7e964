"""Nodes that one command starts all together: mpiexec, srun."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tidings.errors import RunError
from tidings.runtime.guard import RankExit, read_exits
from tidings.runtime.main import ONE_THREAD
from tidings_coordinator.launchers.base import Exit, NodeGroup, Order

#: how long the command may take to end after its nodes, and after it was told to
_END_S = 5.0
#: between looks at the guards' notes, and between the first note and who is named
_LOOK_S, _SETTLE_S = 0.2, 0.3

#: what the commands say of a rank that ended, with a code or a signal
_BY_RANK = (
    # Open MPI
    re.compile(r"process rank (?P<rank>\d+) with PID \d+ .*?exited on\s+signal (?P<signal>\d+)"),
    re.compile(r"Process name: \[[^\]]*,(?P<rank>\d+)\]\s+Exit code:\s+(?P<code>\d+)"),
    # Slurm
    re.compile(r"task (?P<rank>\d+): (?P<name>Killed|Terminated|Aborted|Segmentation fault)"),
    re.compile(r"task (?P<rank>\d+): Exited with exit code (?P<code>\d+)"),
)
_NAMES = {
    "Killed": signal.SIGKILL,
    "Terminated": signal.SIGTERM,
    "Aborted": signal.SIGABRT,
    "Segmentation fault": signal.SIGSEGV,
}


def node_command(order: Order, host: str) -> list[str]:
    """What every rank is to execute; it learns its number from whoever starts it."""
    command = [sys.executable, "-m", "tidings.runtime.main", "--run", order.run]
    command += ["--coordinator", order.coordinator, "--host", host]
    return [*command, "--logs", str(order.logs)]


class JobNodes(NodeGroup):
    """The ranks of one job; the command that starts them also ends them."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], host: str, here: bool
    ) -> None:
        self._command = list(command)
        self._environment = dict(environment)
        self._host = host
        #: whether all ranks run on this machine, where they can be seen and signalled
        self._here = here
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None
        self._log = Path()
        self._stopping = False
        self.exits = asyncio.Queue()
        #: process ids of the nodes
        self.pids: dict[int, int] = {}

    async def start(self, order: Order) -> None:
        """Start the command."""
        self._log = order.logs / "launcher.log"
        tether = [sys.executable, "-m", "tidings_coordinator.launchers.tether", str(os.getpid())]
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *tether,
                *self._command,
                *node_command(order, self._host),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | ONE_THREAD | self._environment | dict(order.join),
                # Ctrl-C is for the coordinator, which then ends the nodes in order
                start_new_session=True,
            )
        self._watch = asyncio.create_task(self._until_end(self._process))

    def joined(self, pids: Mapping[int, int]) -> None:
        """Take down who is who."""
        self.pids = dict(pids)

    async def signal(self, node: int, number: int) -> None:
        """Send a node process a signal."""
        if not self._here:
            raise NotImplementedError("only nodes on the coordinator's machine can be signalled")
        os.kill(self.pids[node], number)

    async def stop(self) -> None:
        """Let the command end, or end it, and with it all ranks."""
        self._stopping = True
        process = self._process
        if process is None:
            return
        for number in (None, signal.SIGTERM, signal.SIGKILL):
            if number is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
            try:
                await asyncio.wait_for(process.wait(), _END_S)
                break
            except TimeoutError:
                continue
        if self._watch is not None:
            await self._watch
        self._process = None

    async def _until_end(self, process: asyncio.subprocess.Process) -> None:
        """Report whoever dies, and the command's own end."""
        ended = asyncio.ensure_future(process.wait())
        named = await report_exits(ended, self._log.parent, self.exits)
        if self._stopping or named:
            return
        if culprit := self._culprit():
            self.exits.put_nowait(culprit)
        elif process.returncode:
            ending = Exit(0, process.returncode)
            name = Path(self._command[0]).name
            self.exits.put_nowait(RunError(f"{name} ended with {ending}; see {self._log}"))

    def _culprit(self) -> Exit | None:
        """The first rank of which the command says that it ended badly; its guard did not."""
        text = self._log.read_text(errors="replace")
        for pattern in _BY_RANK:
            if found := pattern.search(text):
                return Exit(int(found["rank"]), _code(found.groupdict()))
        return None


async def report_exits(
    ended: asyncio.Future[Any], logs: Path, exits: asyncio.Queue[Exit | RunError]
) -> bool:
    """Until ``ended``: pass on which ranks ended badly, the first one first; whether any did.

    They are known from their guards' notes, see :mod:`tidings.runtime.guard`.
    """
    reported: set[int] = set()

    def news() -> list[RankExit]:
        # those that had been told to end have ended for another reason than their own
        bad = (each for each in read_exits(logs) if each.code and not each.told)
        return [each for each in bad if each.node not in reported]

    while True:
        await asyncio.wait([ended], timeout=_LOOK_S)
        over = ended.done()
        if news() or (over and ended.result() != 0):
            # a guard's note may be a little behind those of ranks that died for that death
            await asyncio.sleep(_SETTLE_S)
        for each in news():
            reported.add(each.node)
            exits.put_nowait(Exit(each.node, each.code))
        if over:
            return bool(reported)


def _code(found: dict[str, str | None]) -> int:
    if name := found.get("name"):
        return -_NAMES[name]
    if number := found.get("signal"):
        return -int(number)
    return int(found.get("code") or 1)
