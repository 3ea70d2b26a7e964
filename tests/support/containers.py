"""Containers of a run, as Docker sees them and as the run's records do."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.dockerd import docker
from support.prometheus import Prometheus
from support.runs import DEADLINE_S, lines, wait_for_event
from tidings_coordinator.launchers.compose import Compose, ComposeNodes
from tidings_coordinator.launchers.docker_parts import client

#: eight containers start and import torch
MAKE_S = max(400.0, 2 * DEADLINE_S)


def wait_until_running(directory: Path) -> str:
    """Wait until a run has evaluated its models; its id."""
    run_id = id_of(directory)
    until(lambda: len(lines(directory, "series")) >= 8)
    return run_id


def id_of(directory: Path) -> str:
    """The id of a run that has begun."""
    run_id: str = wait_for_event(directory, "launching")[0]["run"]
    return run_id


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + MAKE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def container(run_id: str, node: int) -> dict[str, Any]:
    """What Docker knows of a node's container."""
    label = [f"--filter=label=tidings.{key}" for key in (f"run={run_id}", f"node={node}")]
    found: list[dict[str, Any]] = json.loads(docker("inspect", docker("ps", "-q", *label).strip()))
    return found[0]


def attached(run_id: str) -> ComposeNodes:
    """The nodes of a run that another process has started, to be acted on."""
    group = ComposeNodes(Compose())
    group._run, group._docker = run_id, client()
    return group


def rounds_of(directory: Path, node: int) -> int:
    """How far a node has come."""
    return max(row["round"] for row in lines(directory, "series") if row["node"] == node)


def goes_on(directory: Path, node: int) -> None:
    """Wait until a node has come further by some rounds."""
    before = rounds_of(directory, node)
    until(lambda: rounds_of(directory, node) > before + 3)


def cpu_ticks(pid: int) -> int:
    """What a process has computed, in the kernel's ticks."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def round_s(directory: Path, node: int) -> float:
    """How long the last three rounds of a node took each."""
    times = [row["time_s"] for row in lines(directory, "series") if row["node"] == node]
    return float(times[-1] - times[-4]) / 3


def networks_of(run_id: str, node: int) -> list[str]:
    return list(container(run_id, node)["NetworkSettings"]["Networks"])


def files_of(tag: str) -> set[str]:
    """The files of an image: mode, owner, time, hash and path."""
    script = "find / -xdev -printf '%M %U %T@ %p\\n'; find / -xdev -type f -exec sha256sum {} +"
    return set(docker("run", "--rm", "--user=0", tag, "sh", "-c", script).splitlines())


def answers(prometheus: Prometheus, query: str) -> float | None:
    """A number that it gives, where it is up and has one."""
    try:
        return next(iter(prometheus.query(query).values()), None)
    except OSError:
        return None
