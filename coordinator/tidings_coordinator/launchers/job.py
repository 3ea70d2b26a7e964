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

from tidings.errors import RunError
from tidings.runtime.main import ONE_THREAD
from tidings_coordinator.launchers.base import Exit, NodeGroup, Order

#: how long the command may take to end after its nodes, and after it was told to
_END_S = 5.0
_LOOK_S = 0.2
_NEWS_S = 1.0

#: what the commands say of a rank that ended: by rank or by process, with a code or a signal
_BY_RANK = (
    # Open MPI
    re.compile(r"process rank (?P<rank>\d+) with PID \d+ .*?exited on\s+signal (?P<signal>\d+)"),
    re.compile(r"Process name: \[[^\]]*,(?P<rank>\d+)\]\s+Exit code:\s+(?P<code>\d+)"),
    # Slurm
    re.compile(r"task (?P<rank>\d+): (?P<name>Killed|Terminated|Aborted|Segmentation fault)"),
    re.compile(r"task (?P<rank>\d+): Exited with exit code (?P<code>\d+)"),
)
#: MPICH
_BY_PID = re.compile(r"PID (?P<pid>\d+) RUNNING AT \S+\s+=\s+EXIT CODE: (?P<signal>\d+)")
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
                env=os.environ | ONE_THREAD | self._environment,
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
        gone: set[int] = set()
        while process.returncode is None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), _LOOK_S)
            vanished = set(self._vanished()) - gone
            gone |= vanished
            if vanished and process.returncode is None:
                # the command may be about to say more
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), _NEWS_S)
            if self._culprit() is None and not self._stopping:
                for node in sorted(vanished):
                    self.exits.put_nowait(Exit(node, None))
        if self._stopping:
            return
        culprit = self._culprit()
        if culprit is not None:
            self.exits.put_nowait(culprit)
        elif process.returncode:
            ending = Exit(0, process.returncode)
            name = Path(self._command[0]).name
            self.exits.put_nowait(RunError(f"{name} ended with {ending}; see {self._log}"))

    def _vanished(self) -> list[int]:
        if not self._here:
            return []
        return [node for node, pid in self.pids.items() if not Path(f"/proc/{pid}").exists()]

    def _culprit(self) -> Exit | None:
        """The first rank of which the command says that it ended badly."""
        text = self._log.read_text(errors="replace")
        for pattern in _BY_RANK:
            if found := pattern.search(text):
                return Exit(int(found["rank"]), _code(found.groupdict()))
        nodes = {pid: node for node, pid in self.pids.items()}
        for found in _BY_PID.finditer(text):
            if (node := nodes.get(int(found["pid"]))) is not None:
                return Exit(node, _code(found.groupdict()))
        return None


def _code(found: dict[str, str | None]) -> int:
    if name := found.get("name"):
        return -_NAMES[name]
    if number := found.get("signal"):
        # MPICH writes exit codes and signals into one place
        return -int(number) if int(number) in signal.valid_signals() else int(number)
    return int(found.get("code") or 1)
