"""Runs whose nodes are the ranks of a real MPI job, and what happens when one of them dies."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.mpi_cluster import FLAVORS, bin_of, environment, mpiexec
from support.runs import (
    DEADLINE_S,
    SMALL,
    descendants,
    node_processes,
    result,
    tidings,
    wait_for_event,
    wait_until_gone,
)

pytestmark = pytest.mark.process

ENDLESS = ["--set", "stop.rounds=1000000", "--set", "problem={kind: quadratic, dim: 50}"]
ENDLESS += ["--set", "target=null", "--set", "compute.time=20ms", "--set", "wait.timeout=2s"]
# every rank imports torch, and all but one of them have only to die
ENDLESS += ["--set", "nodes=3"]
UNMEASURED = ["--set", "network.probe=false"]
FORMS = ("tidings run", "mpiexec")
WAYS = ("mpich", "openmpi", "openmpi with ulfm")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


def command(form: str, way: str, file: Path, out: Path, *settings: str) -> list[str]:
    """A run: by our launcher, or as the user would call mpiexec."""
    flavor, ulfm = way.split()[0], "ulfm" in way
    python = str(bin_of(flavor) / "python")
    end = [str(file), "--out", str(out), "--quiet", *UNMEASURED, *settings]
    if form == "mpiexec":
        options = ["--with-ft", "ulfm"] if ulfm else []
        ranks = 4 if "nodes=3" in settings else 5
        return [*mpiexec(flavor, ranks, *options), python, "-m", "tidings.runtime.main", *end]
    end += ["--launcher", "mpi"] + (["--set", "launcher.ulfm=true"] if ulfm else [])
    return [python, "-m", "tidings_coordinator.cli", "run", *end]


@contextmanager
def started(
    form: str, way: str, file: Path, out: Path
) -> Iterator[tuple[subprocess.Popen[bytes], set[int]]]:
    """An endless run that has begun, and all of its processes; none is left in the end."""
    process = subprocess.Popen(
        command(form, way, file, out, *ENDLESS), env=environment(way.split()[0])
    )
    pids: set[int] = set()
    try:
        wait_for_event(out, "started")
        pids = descendants(process.pid)
        yield process, pids
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
    wait_until_gone(pids)


@pytest.mark.parametrize("flavor", FLAVORS)
@pytest.mark.parametrize("form", FORMS)
def test_both_ways_to_start_agree_with_the_simulator(
    flavor: str, form: str, file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    # where mpiexec is called by the user, rank 0 lets the others into the control plane
    secured = ["--set", "security.tls=always"] if form == "mpiexec" else []
    done = subprocess.run(
        command(form, flavor, file, out, *secured),
        env=environment(flavor),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert result(out)["security"]["tls"] is (form == "mpiexec")
    assert tidings("simulate", str(file), "--out", str(tmp_path / "sim")).returncode == 0
    assert result(out)["weights_sha256"] == result(tmp_path / "sim")["weights_sha256"]


def test_the_control_plane_can_be_protected(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = subprocess.run(
        command("tidings run", "mpich", file, out, "--set", "security.tls=always"),
        env=environment("mpich"),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert result(out)["security"] == {"tls": True, "refused": {}}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("form", FORMS)
def test_a_rank_that_dies_is_named_and_nothing_is_left(
    form: str, way: str, file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with started(form, way, file, out) as (process, pids):
        os.kill(node_processes(out)[2], signal.SIGKILL)
        assert process.wait(DEADLINE_S) != 0
        # in the second form the coordinator outlives mpiexec
        wait_until_gone(pids)
    found = result(out)
    assert found["run"] == "failed"
    assert "node 2 died" in found["reason"]
    assert "killed by SIGKILL" in found["reason"]
    if "ulfm" in way:
        # the survivors went on, and handed in what they had
        assert sum(digest is not None for digest in found["weights_sha256"]) == 2


@pytest.mark.parametrize("flavor", FLAVORS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_job_that_the_user_ends_says_so(
    flavor: str, number: signal.Signals, file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with started("mpiexec", flavor, file, out) as (process, pids):
        process.send_signal(number)
        process.wait(DEADLINE_S)
        wait_until_gone(pids)
    found = result(out)
    assert found["run"] in ("aborted", "failed")
    assert "aborted by" in found["reason"] or "mpiexec has ended the job" in found["reason"]


@pytest.mark.parametrize("flavor", FLAVORS)
def test_the_death_of_rank_0_is_not_the_coordinators(
    flavor: str, file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with started("mpiexec", flavor, file, out) as (process, pids):
        os.kill(_rank_0(pids), signal.SIGKILL)
        assert process.wait(DEADLINE_S) != 0
        wait_until_gone(pids)
    found = result(out)
    assert found["run"] == "failed"
    assert "rank 0 has died" in found["reason"]


def _rank_0(pids: set[int]) -> int:
    for pid in pids:
        words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if {b"PMI_RANK=0", b"PMIX_RANK=0"} & set(words) and b"tidings.runtime.main" in arguments:
            return pid
    raise AssertionError("no process of rank 0")
