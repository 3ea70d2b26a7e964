"""Every message is accounted for where a run is stopped in the middle, over slow links."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from support.mpi_cluster import bin_of, environment
from support.runs import DEADLINE_S, lines, result, tidings

pytestmark = pytest.mark.process

#: a model of 75 kB takes 0.6 s, so that several are on their way whenever it is stopped
EXPERIMENT = """
name: stopped
seed: 3
nodes: 5
topology: star
network: {rate: 1Mbit/s, delay: 80ms, loss: 2%, probe: false}
problem: {kind: digits, hidden: 256}
protocol: {kind: fed_async, lr: 0.05}
compute: {time: 10ms}
wait: {for: live, timeout: 2s}
faults:
  - {id: twice, fault: msg.duplicate, on: all, with: {p: 0.3}, at: 0s}
expect: [accounting]
stop: {time: 3s}
evaluate: {every: 1000}
"""
PAIRWISE = ["--set", "topology=ring", "--set", "protocol={kind: ad_psgd, lr: 0.05}"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "stopped.yaml"
    path.write_text(EXPERIMENT)
    return path


def accounted(out: Path) -> dict[str, int]:
    """What the check has found, which must be that nothing is missing."""
    (check,) = result(out)["expect"]
    assert check["verdict"] == "pass", check
    measured: dict[str, int] = check["measured"]
    assert measured["unexplained"] == 0
    assert measured["handed messages"] > 0
    return measured


@pytest.mark.parametrize("settings", [[], PAIRWISE], ids=["fed_async", "ad_psgd"])
def test_over_grpc(file: Path, tmp_path: Path, settings: list[str]) -> None:
    out = tmp_path / "run"
    done = tidings("run", str(file), "--out", str(out), "--quiet", *settings)
    assert done.returncode == 0, done.stdout + done.stderr
    measured = accounted(out)
    assert measured["duplicated messages"] > 0
    # it was stopped, and did not end by itself
    assert [row["reason"] for row in lines(out, "events") if row["event"] == "over"] == [
        "3s passed"
    ]


def test_over_mpi(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [str(bin_of("mpich") / "python"), "-m", "tidings_coordinator.cli", "run", str(file)]
    done = subprocess.run(
        [*command, "--out", str(out), "--quiet", "--launcher", "mpi"],
        env=environment("mpich"),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    accounted(out)
