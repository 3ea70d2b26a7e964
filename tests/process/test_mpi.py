"""Runs whose nodes are the ranks of a real MPI job, and what happens when one of them dies."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from support.mpi_cluster import FLAVORS, bin_of, environment, mpiexec
from support.runs import (
    DEADLINE_S,
    SMALL,
    descendants,
    result,
    tidings,
    wait_for_event,
    wait_until_gone,
)

pytestmark = pytest.mark.process

ENDLESS = ["--set", "stop.rounds=1000000", "--set", "problem={kind: quadratic, dim: 50}"]
ENDLESS += ["--set", "target=null", "--set", "compute.time=20ms", "--set", "wait.timeout=2s"]
UNMEASURED = ["--set", "network.probe=false"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


def command(flavor: str, file: Path, out: Path, *settings: str) -> list[str]:
    begin = [str(bin_of(flavor) / "python"), "-m", "tidings_coordinator.cli", "run", str(file)]
    return [*begin, "--launcher", "mpi", "--out", str(out), "--quiet", *UNMEASURED, *settings]


@pytest.mark.parametrize("flavor", FLAVORS)
@pytest.mark.parametrize("form", ["tidings run", "mpiexec"])
def test_both_ways_to_start_agree_with_the_simulator(
    flavor: str, form: str, file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    run = command(flavor, file, out)
    if form == "mpiexec":
        node = [str(bin_of(flavor) / "python"), "-m", "tidings.runtime.main", str(file)]
        run = [*mpiexec(flavor, 5), *node, "--out", str(out), "--quiet", *UNMEASURED]
        # rank 0 lets the others into the control plane
        run += ["--set", "security.tls=always"]
    done = subprocess.run(
        run, env=environment(flavor), capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert result(out)["security"]["tls"] is (form == "mpiexec")
    assert tidings("simulate", str(file), "--out", str(tmp_path / "sim")).returncode == 0
    assert result(out)["weights_sha256"] == result(tmp_path / "sim")["weights_sha256"]


def test_the_control_plane_can_be_protected(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run = command("mpich", file, out, "--set", "security.tls=always")
    done = subprocess.run(
        run, env=environment("mpich"), capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert result(out)["security"] == {"tls": True, "refused": {}}


@pytest.mark.xfail(
    strict=False,
    reason="mpiexec kills the other ranks when one dies, and on a busy machine the verdict may "
    "name one of those instead of the first",
)
@pytest.mark.parametrize("way", ["mpich", "openmpi", "openmpi with ulfm"])
def test_a_rank_that_dies_is_named_and_nothing_is_left(
    way: str, file: Path, tmp_path: Path
) -> None:
    flavor, out = way.split()[0], tmp_path / "run"
    ulfm = ["--set", "launcher.ulfm=true"] if "ulfm" in way else []
    process = subprocess.Popen(command(flavor, file, out, *ENDLESS, *ulfm), env=environment(flavor))
    try:
        wait_for_event(out, "started")
        pids = descendants(process.pid)
        os.kill(_rank(2, pids), signal.SIGKILL)
        assert process.wait(DEADLINE_S) == 1
    finally:
        process.kill()
        process.wait()
    wait_until_gone(pids)
    found = result(out)
    assert found["run"] == "failed"
    assert "node 2 died in round" in found["reason"]
    if ulfm:
        # the survivors went on, and handed in what they had
        assert sum(digest is not None for digest in found["weights_sha256"]) == 3


def _rank(rank: int, pids: set[int]) -> int:
    for pid in pids:
        words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
        ours = {f"{name}={rank}".encode() for name in ("PMI_RANK", "PMIX_RANK")} & set(words)
        if ours and b"tidings.runtime.main" in line and b"mpiexec" not in line.split(b"\0")[0]:
            return pid
    raise AssertionError(f"no process of rank {rank}")
