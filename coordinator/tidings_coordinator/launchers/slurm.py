"""Nodes as the tasks of a Slurm job: inside an allocation by srun, from outside by sbatch."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import sys
from dataclasses import dataclass

from tidings.errors import UserError
from tidings_coordinator.launchers.base import (
    Delegate,
    Launcher,
    NodeGroup,
    Order,
    check_port,
    launchers,
)
from tidings_coordinator.launchers.job import JobNodes


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

    transport = "mpi"

    def __post_init__(self) -> None:
        check_port(self.port)
        if not self.host:
            several = int(os.environ.get("SLURM_JOB_NUM_NODES", "1")) > 1
            object.__setattr__(self, "host", socket.gethostname() if several else "127.0.0.1")

    @property
    def join_s(self) -> float:
        """Every task imports torch for itself."""
        return 300.0

    def check(self, nodes: int) -> None:
        """UserError where there is no Slurm, or the allocation has too few tasks."""
        command = "srun" if inside() else "sbatch"
        if shutil.which(command) is None:
            raise UserError(f"launcher: there is no {command} here, so there is no Slurm")
        tasks = allocated_tasks()
        if tasks is not None and nodes > tasks:
            raise UserError(
                f"nodes: {nodes} nodes need as many tasks, this allocation "
                f"(job {os.environ['SLURM_JOB_ID']}) has {tasks}"
            )

    def delegate(self) -> Delegate | None:
        """Outside an allocation the whole run is a job."""
        if inside():
            return None
        from tidings_coordinator.launchers.slurm_job import submit

        return lambda run, path, watcher: submit(run, path, watcher, shlex.split(self.options))

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


def python_command() -> list[str]:
    """``tidings`` with this interpreter."""
    return [sys.executable, "-m", "tidings_coordinator.cli"]
