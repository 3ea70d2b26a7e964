"""Nodes as the tasks of a Slurm job: inside an allocation by srun, from outside by sbatch."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tidings.errors import ConfigError
from tidings_coordinator.launchers.base import (
    Delegate,
    Launcher,
    NodeGroup,
    Order,
    check_port,
    launchers,
)
from tidings_coordinator.launchers.capabilities import Capabilities, Shown
from tidings_coordinator.launchers.job import JobNodes

if TYPE_CHECKING:
    from tidings_coordinator.planning import RunPlan


_RUNS = (
    "tests/deploy/test_slurm.py::test_from_outside_it_submits_follows_and_agrees_with_the_simulator"
)


@launchers.register("slurm")
@dataclass(frozen=True)
class Slurm(Launcher):
    """One task a node, over MPI. Outside an allocation it submits itself and follows the job."""

    #: where the coordinator listens; by default loopback, or this machine's name if there are more
    host: str = ""
    #: the coordinator's port; 0 for any free one
    port: int = 0
    #: what srun and the MPI library start with; MPICH's wheel speaks pmi2, Open MPI's pmix
    pmi: str = "pmi2"
    #: more options for sbatch, such as "--partition=long --time=1:00:00"
    options: str = ""

    can = Capabilities(
        transport="mpi",
        runs=Shown(_RUNS),
        abilities={
            "tls": Shown(_RUNS, "the control plane; what protects messages is up to MPI"),
        },
    )

    def __post_init__(self) -> None:
        check_port(self.port)
        if not self.host:
            several = int(os.environ.get("SLURM_JOB_NUM_NODES", "1")) > 1
            object.__setattr__(self, "host", socket.gethostname() if several else "127.0.0.1")

    @property
    def join_s(self) -> float:
        """Every task imports torch for itself."""
        return 300.0

    def check(self, run: RunPlan) -> None:
        """Slurm, and enough tasks in the allocation."""
        command = "srun" if inside() else "sbatch"
        if shutil.which(command) is None:
            message = f"there is no {command} here, so there is no Slurm"
            raise ConfigError(message, ("launcher",))
        tasks, nodes = allocated_tasks(), len(run.nodes)
        if tasks is not None and nodes > tasks:
            raise ConfigError(
                f"{nodes} nodes need as many tasks, this allocation "
                f"(job {os.environ['SLURM_JOB_ID']}) has {tasks}",
                ("nodes",),
            )

    def delegate(self) -> Delegate | None:
        """Outside an allocation the whole run is a job."""
        if inside():
            return None
        from tidings_coordinator.launchers.slurm_job import submit

        return lambda commission: submit(commission, shlex.split(self.options))

    def group(self) -> NodeGroup:
        """The tasks of one job step."""
        # a task that dies ends the step, and srun says which it was
        command = ["srun", f"--mpi={self.pmi}", "--kill-on-bad-exit=1", "--input=none"]
        return TaskNodes(command, {"SLURM_EXPORT_ENV": "ALL"}, "127.0.0.1", here=False)


class TaskNodes(JobNodes):
    """The tasks of a step that srun starts for this run."""

    async def start(self, order: Order) -> None:
        """Call srun with one task a node."""
        self._command += [f"--ntasks={order.nodes}", f"--job-name={order.run}"]
        await super().start(order)


def inside() -> bool:
    """Whether this process is part of an allocation."""
    return "SLURM_JOB_ID" in os.environ


def allocated_tasks() -> int | None:
    """How many tasks the allocation has; None outside of one."""
    if not inside():
        return None
    if (tasks := os.environ.get("SLURM_NTASKS", "")).isdecimal():
        return int(tasks)
    # "8(x2),4": as many tasks as processors, where the allocation names no tasks
    groups = re.findall(r"(\d+)(?:\(x(\d+)\))?", os.environ.get("SLURM_JOB_CPUS_PER_NODE", ""))
    return sum(int(cpus) * int(times or 1) for cpus, times in groups) or None
