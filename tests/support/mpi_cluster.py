"""Real MPI for tests: where it is installed, and jobs whose ranks run nodes."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from support.recording import Recorder
from tidings.runtime.main import ONE_THREAD
from tidings.runtime.plan import NodePlan
from tidings.runtime.simulation import Simulated
from tidings.v1 import records_pb2 as records

ROOT = Path(__file__).parents[2]
DEADLINE_S = 120.0
FLAVORS = ("mpich", "openmpi")

_OPTIONS = {"mpich": [], "openmpi": ["--map-by", ":OVERSUBSCRIBE", "--bind-to", "none"]}
_ROOT_MAY = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


def bin_of(flavor: str) -> Path:
    """The bin folder of the environment with that MPI; skips the test where there is none."""
    variable = f"TIDINGS_{flavor.upper()}"
    folder = Path(os.environ.get(variable, ROOT / f".venv-{flavor}")) / "bin"
    if not (folder / "mpiexec").exists():
        pytest.skip(f"no MPI in {folder.parent}: make mpi, or set {variable} to an environment")
    return folder


def mpiexec(flavor: str, ranks: int, *options: str) -> list[str]:
    """The beginning of a command."""
    command = [str(bin_of(flavor) / "mpiexec"), *_OPTIONS[flavor], *options]
    return [*command, "-n", str(ranks)]


def environment(flavor: str) -> Mapping[str, str]:
    """What a command needs: its MPI, and the modules that this process has found."""
    path = f"{bin_of(flavor)}{os.pathsep}{os.environ['PATH']}"
    modules = [str(ROOT / "tests"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    return (
        os.environ | _ROOT_MAY | {"PATH": path, "PYTHONPATH": os.pathsep.join(modules)} | ONE_THREAD
    )


class MpiCluster:
    """One job for many cases; it is started with the first, and again after it has failed."""

    def __init__(self, flavor: str, ranks: int, folder: Path) -> None:
        self._flavor = flavor
        self._ranks = ranks
        self._folder = folder
        self._job: subprocess.Popen[bytes] | None = None
        self._directory = folder
        self._started = self._number = 0
        bin_of(flavor)

    def run(
        self, plans: Sequence[NodePlan], recorder: Recorder | None = None, **options: object
    ) -> Simulated:
        """One case; the result in the simulator's form."""
        assert len(plans) <= self._ranks
        if self._job is None or self._job.poll() is not None:
            self._start()
        number, self._number = self._number, self._number + 1
        # no case takes another's late messages for its own
        plans = [plan.model_copy(update={"run": f"case-{number}"}) for plan in plans]
        part = self._directory / f"{number}.part"
        part.write_bytes(pickle.dumps(plans))
        part.rename(self._directory / f"{number}.case")
        found = [self._result(number, rank) for rank in range(len(plans))]
        return _simulated(found, recorder or Recorder())

    def close(self) -> None:
        """End the job; no process of it is left."""
        if self._job is None:
            return
        (self._directory / "stop").touch()
        try:
            self._job.wait(20)
        except subprocess.TimeoutExpired:
            self._job.send_signal(signal.SIGTERM)
            self._job.wait(20)

    def _start(self) -> None:
        self._directory = self._folder / f"job-{self._started}"
        self._directory.mkdir()
        self._started += 1
        self._number = 0
        ranks = Path(__file__).with_name("mpi_ranks.py")
        command = [*mpiexec(self._flavor, self._ranks), str(bin_of(self._flavor) / "python")]
        with (self._directory / "log").open("wb") as log:
            self._job = subprocess.Popen(
                [*command, str(ranks), str(self._directory)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(self._flavor),
            )

    def _result(self, number: int, rank: int) -> dict[str, Any]:
        file = self._directory / f"{number}.{rank}.result"
        deadline = time.monotonic() + DEADLINE_S
        while not file.exists():
            log = self._directory / "log"
            assert self._job is not None
            assert self._job.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.005)
        found: dict[str, Any] = pickle.loads(file.read_bytes())
        return found


def _simulated(found: Sequence[Mapping[str, Any]], recorder: Recorder) -> Simulated:
    events = [records.Event.FromString(text) for each in found for text in each["events"]]
    recorder.events += sorted(events, key=lambda event: event.time_s)
    recorder.faults += [
        records.FaultChange.FromString(text) for each in found for text in each["faults"]
    ]
    recorder.rows += [
        records.Evaluation.FromString(text) for each in found for text in each["rows"]
    ]
    finals = [records.Final.FromString(each["final"]) for each in found]
    nodes: Any = [SimpleNamespace(model=torch.from_numpy(each["model"])) for each in found]
    return Simulated(finals, max(each["time_s"] for each in found), "", 0, None, nodes)
