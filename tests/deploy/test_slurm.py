"""Runs under a real Slurm: munge, slurmctld and two slurmd on this machine."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from support.mpi_cluster import ROOT, bin_of
from support.runs import DEADLINE_S, SMALL, node_processes, result, tidings, wait_for_event
from support.slurm import cluster, slurm

pytestmark = [pytest.mark.deploy, pytest.mark.daemons]

QUICK = ["--set", "network.probe=false"]
ENDLESS = ["--set", "stop.rounds=1000000", "--set", "problem={kind: quadratic, dim: 50}"]
ENDLESS += ["--set", "target=null", "--set", "compute.time=20ms", "--set", "network.probe=false"]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    bin_of("mpich")
    with cluster(tmp_path_factory.mktemp("slurm")) as found:
        yield found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


def run(file: Path, out: Path, *settings: str) -> list[str]:
    python = str(bin_of("mpich") / "python")
    command = [python, "-m", "tidings_coordinator.cli", "run", str(file), "--launcher", "slurm"]
    return [*command, "--out", str(out), "--quiet", *settings]


def batch(environment: Mapping[str, str], tmp_path: Path, *arguments: str) -> str:
    """Submit the script of deploy/slurm for four nodes; options of sbatch first. The job's id."""
    tidings_here = tmp_path / "tidings"
    python = bin_of("mpich") / "python"
    tidings_here.write_text(f'#!/bin/sh\nexec {python} -m tidings_coordinator.cli "$@"\n')
    tidings_here.chmod(0o755)
    options = [argument for argument in arguments if argument == "--wait"]
    submit = ["sbatch", "--parsable", "--ntasks=4", f"--output={tmp_path}/%j.log", *options]
    submit += [str(ROOT / "deploy" / "slurm" / "tidings.sbatch"), *arguments[len(options) :]]
    return slurm({**environment, "TIDINGS": str(tidings_here)}, *submit)


def agrees_with_the_simulator(out: Path, file: Path, tmp_path: Path) -> None:
    assert tidings("simulate", str(file), "--out", str(tmp_path / "sim")).returncode == 0
    assert result(out)["weights_sha256"] == result(tmp_path / "sim")["weights_sha256"]


def leaves_no_segments(out: Path) -> bool:
    """Whether what the ranks of a run share has no name any more, so that no kill leaves it."""
    shared = [
        line
        for pid in node_processes(out).values()
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines()
        if "/dev/shm/" in line
    ]
    return len(shared) >= len(node_processes(out)) and all("(deleted)" in line for line in shared)


def test_from_outside_it_submits_follows_and_agrees_with_the_simulator(
    environment: Mapping[str, str], file: Path, tmp_path: Path
) -> None:
    out, both = tmp_path / "run", "launcher.options=--nodes=2"
    protected = ("--set", "security.tls=always")
    done = subprocess.run(
        run(file, out, "--set", both, *protected, *QUICK),
        env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "run completed" in done.stdout
    agrees_with_the_simulator(out, file, tmp_path)
    # two machines, by their names
    assert result(out)["security"]["tls"] is True


def test_more_nodes_than_tasks_is_an_error_up_front(
    environment: Mapping[str, str], file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    allocate = ["salloc", "--quiet", "--ntasks=3", *run(file, out)]
    done = subprocess.run(
        allocate, env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert done.returncode == 2
    assert "4 nodes need as many tasks" in done.stderr
    assert not out.exists()


def test_ctrl_c_cancels_the_job_and_the_run_says_so(
    environment: Mapping[str, str], file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    process = subprocess.Popen(
        run(file, out, *ENDLESS), env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        wait_for_event(out, "started")
        assert leaves_no_segments(out)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=DEADLINE_S)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert (result(out)["run"], result(out)["reason"]) == ("aborted", "aborted by SIGTERM")


def test_the_batch_script_runs_inside_its_allocation(
    environment: Mapping[str, str], file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    job = batch(environment, tmp_path, "--wait", str(file), str(out), *QUICK)
    log = (tmp_path / f"{job}.log").read_text()
    assert "run completed" in log, log
    assert result(out)["launcher"] == "slurm"


def test_a_requeued_job_is_a_new_run(
    environment: Mapping[str, str], file: Path, tmp_path: Path
) -> None:
    out, again = tmp_path / "run", tmp_path / "run-restart-1"
    job = batch(environment, tmp_path, str(file), str(out), *ENDLESS)
    try:
        wait_for_event(out, "started")
        before = (out / "experiment.yaml").read_bytes()
        slurm(environment, "scontrol", "requeue", job)
        # it would begin again after two minutes; its first run must have ended for that to change
        deadline = time.monotonic() + DEADLINE_S
        state = ["squeue", "--noheader", "--format=%T", f"--jobs={job}"]
        while not (again / "experiment.yaml").exists():
            assert time.monotonic() < deadline
            if slurm(environment, *state) == "PENDING":
                slurm(environment, "scontrol", "update", f"JobId={job}", "StartTime=now")
        wait_for_event(again, "started")
        assert (out / "experiment.yaml").read_bytes() == before
        assert result(out)["run"] == "aborted"
    finally:
        slurm(environment, "scancel", job)


def test_the_plain_form_under_srun(
    environment: Mapping[str, str], file: Path, tmp_path: Path
) -> None:
    """One step whose first rank coordinates: no launcher, no port to choose."""
    out = tmp_path / "run"
    step = ["srun", "--mpi=pmi2", "--nodes=2", "--ntasks=5", str(bin_of("mpich") / "python")]
    node = ["-m", "tidings.runtime.main", str(file), "--out", str(out), "--quiet", *QUICK]
    done = subprocess.run(
        [*step, *node],
        env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    agrees_with_the_simulator(out, file, tmp_path)
