"""Whole runs through the Kubernetes API: the test's server runs the pods' containers for real."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.kube_api import KubeApi
from support.runs import (
    DEADLINE_S,
    SMALL,
    finish,
    lines,
    result,
    send,
    started,
    tidings,
    wait_until_gone,
)

pytestmark = pytest.mark.process

#: never over by itself
LONG = ["--set", "stop.rounds=100000"]


@pytest.fixture
def api(tmp_path: Path) -> Iterator[KubeApi]:
    with KubeApi(tmp_path) as server:
        yield server


def arguments(api: KubeApi, tmp_path: Path, *settings: str) -> list[str]:
    file = tmp_path / "small.yaml"
    file.write_text(SMALL)
    place = ["--launcher", "kubernetes", "--set", f"launcher.kubeconfig={api.kubeconfig}"]
    return ["run", str(file), *place, *settings, "--out", str(tmp_path / "run")]


@contextmanager
def running(api: KubeApi, tmp_path: Path, *settings: str) -> Iterator[subprocess.Popen[str]]:
    """A long run, from when its nodes are working."""
    with started(*arguments(api, tmp_path, *LONG, *settings)) as run:
        until(lambda: said(api, "running"), run)
        yield run


def until(condition: Callable[[], bool], run: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert run.poll() is None, finish(run)
        assert time.monotonic() < deadline
        time.sleep(0.01)


def said(api: KubeApi, phase: str) -> bool:
    """Whether the coordinator's log has shown that phase."""
    with api.store.changed:
        containers = list(api.machine._containers.values())
        return any(f'"phase":"{phase}"' in line for c in containers for line in c.lines)


def everything_is_gone(api: KubeApi) -> None:
    assert api.objects() == []
    wait_until_gone(api.machine.pids())


@pytest.mark.parametrize("workload", ["jobs", "jobset"])
def test_a_run_on_kubernetes_gives_the_weights_of_the_simulator(
    workload: str, api: KubeApi, tmp_path: Path
) -> None:
    done = tidings(*arguments(api, tmp_path, "--set", f"launcher.workload={workload}"))
    assert done.returncode == 0, done.stderr
    out = tmp_path / "run"
    found = result(out)
    assert (found["run"], found["launcher"], found["rounds"]) == ("completed", "kubernetes", 12)
    simulated = tidings(
        "simulate", str(tmp_path / "small.yaml"), "--out", str(tmp_path / "simulated"), "--quiet"
    )
    assert simulated.returncode == 0, simulated.stderr
    assert found["weights_sha256"] == result(tmp_path / "simulated")["weights_sha256"]
    assert found["bytes"] == result(tmp_path / "simulated")["bytes"]
    # everything that a run on this machine leaves, and what happened to the pods
    assert "kind: kubernetes" in (out / "resolved.yaml").read_text()
    assert (out / "experiment.yaml").read_text() == SMALL
    assert {path.name for path in (out / "logs").iterdir()} >= {"node-0000.log", "node-0003.log"}
    assert len(lines(out, "series")) == 4 * 4
    assert [line["code"] for line in lines(out, "cluster") if line["is"] == "ended"] == [0] * 5
    assert (out / "report.html").exists()
    assert "round 12/12" in done.stderr or "round" in done.stderr
    everything_is_gone(api)
