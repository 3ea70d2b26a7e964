"""Every way a run can end early: a clear message, no process left, a readable directory."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.runs import (
    SMALL,
    descendants,
    finish,
    lines,
    node_processes,
    result,
    send,
    started,
    tidings,
    wait_for_event,
    wait_until_gone,
)

pytestmark = pytest.mark.process

ENDLESS = ["--quiet", "--set", "stop.rounds=100000", "--set", "evaluate.every=1"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


def wait_for_rows(directory: Path, count: int) -> None:
    """Wait until the series has that many rows: the run is under way."""
    wait_for_event(directory, "started")
    while len(lines(directory, "series")) < count:
        pass


def check_readable(directory: Path) -> None:
    """``tidings report`` makes a page of the directory."""
    page = directory.parent / "again.html"
    done = tidings("report", str(directory), "--out", str(page))
    assert done.returncode == 0, done.stderr
    assert "small" in page.read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_in_order(file: Path, tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "run"
    with started("run", str(file), "--out", str(out), *ENDLESS) as run:
        wait_for_rows(out, 12)
        below = descendants(run.pid)
        assert len(below) >= 5
        send(run.pid, number)
        code, text, _ = finish(run)
    wait_until_gone(below)
    assert code == 130
    assert f"run aborted (aborted by {number.name})" in text
    found = result(out)
    assert found["run"] == "aborted"
    # the nodes were stopped, not killed: each has handed in its closing record
    assert all(found["weights_sha256"])
    assert (out / "report.html").exists()
    check_readable(out)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_simulated_run_too(
    file: Path, tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "run"
    with started("simulate", str(file), "--out", str(out), *ENDLESS) as run:
        while len(lines(out, "series")) < 12:
            assert run.poll() is None
        send(run.pid, number)
        code, text, error = finish(run)
    assert code == 130, error
    assert f"run aborted (aborted by {number.name})" in text
    assert result(out)["run"] == "aborted"
    check_readable(out)


def test_a_second_ctrl_c_ends_it_at_once(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with started("run", str(file), "--out", str(out), *ENDLESS) as run:
        wait_for_rows(out, 8)
        below = descendants(run.pid)
        victim = next(iter(node_processes(out).values()))
        # a stopped node cannot hand in its record, so the first Ctrl-C has to wait for it
        send(victim, signal.SIGSTOP)
        send(run.pid, signal.SIGINT)
        wait_for_event(out, "over")
        send(run.pid, signal.SIGINT)
        code, _, _ = finish(run)
    wait_until_gone(below)
    assert code == 130
    assert result(out)["run"] == "aborted"


def test_a_node_killed_by_hand_fails_the_run(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with started("run", str(file), "--out", str(out), *ENDLESS) as run:
        wait_for_rows(out, 12)
        below = descendants(run.pid)
        send(node_processes(out)[2], signal.SIGKILL)
        code, text, _ = finish(run)
    wait_until_gone(below)
    assert code == 1
    assert "run failed (node 2 died in round" in text
    assert "killed by SIGKILL" in text
    found = result(out)
    assert found["run"] == "failed"
    # the others were stopped in order
    assert [digest is None for digest in found["weights_sha256"]] == [False, False, True, False]
    assert [event["node"] for event in lines(out, "events") if event["event"] == "died"] == [2]
    check_readable(out)


def test_no_node_outlives_a_killed_coordinator(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with started("run", str(file), "--out", str(out), *ENDLESS) as run:
        wait_for_rows(out, 12)
        below = descendants(run.pid)
        send(run.pid, signal.SIGKILL)
        wait_until_gone(below)
    assert not (out / "result.json").exists()
    check_readable(out)


def test_no_node_outlives_a_killed_fork_server(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with started("run", str(file), "--out", str(out), *ENDLESS) as run:
        wait_for_rows(out, 8)
        below = descendants(run.pid)
        nodes = set(node_processes(out).values())
        (server,) = (pid for pid in below - nodes if descendants(pid) >= nodes)
        send(server, signal.SIGKILL)
        code, text, _ = finish(run)
    wait_until_gone(below)
    assert code == 1
    assert "run failed" in text


def test_an_occupied_port_is_refused_before_anything_starts(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = tidings("run", str(file), "--out", str(out), "--set", f"launcher.port={port}")
    assert done.returncode == 2
    assert (
        done.stderr.strip()
        .splitlines()[-1]
        .startswith(f"error: cannot listen on 127.0.0.1:{port}: the port is taken")
    )
    assert not out.exists()


# the second is what a run that was broken off has left
@pytest.mark.parametrize("name", ["precious", "graph.json"])
def test_a_run_directory_is_never_written_over(name: str, file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / name).write_text("{}")
    done = tidings("run", str(file), "--out", str(out))
    assert done.returncode == 2
    assert "is not empty" in done.stderr
    assert [entry.name for entry in out.iterdir()] == [name]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 200 kB."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small file system needs root")
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let us mount a file system")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_ends_the_run(file: Path, tmp_path: Path, small_disk: Path) -> None:
    out = small_disk / "run"
    with started("run", str(file), "--out", str(out), *ENDLESS) as run:
        wait_for_event(out, "started")
        below = descendants(run.pid)
        code, text, _ = finish(run)
    wait_until_gone(below)
    assert code == 1
    assert "run failed (cannot write" in text
    assert "No space left on device" in text
    assert not list(out.glob("*.part"))
    page = tmp_path / "again.html"
    done = tidings("report", str(out), "--out", str(page))
    assert done.returncode == 0, done.stderr
    assert page.exists()


def test_a_protocol_that_raises_fails_the_run_and_says_where(file: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(
        "from dataclasses import dataclass\n"
        "from tidings import Node, Protocol\n\n"
        "@dataclass(frozen=True)\n"
        "class Broken(Protocol):\n"
        "    async def run(self, node: Node) -> None:\n"
        "        for _ in node.rounds():\n"
        "            await node.report()\n"
        "            if node.id == 1 and node.round == 3:\n"
        "                raise RuntimeError('no luck')\n"
    )
    out = tmp_path / "run"
    setting = ["--set", "protocol={kind: own.py:Broken}"]
    done = tidings("run", str(file), "--out", str(out), "--quiet", *setting)
    assert done.returncode == 1
    assert "run failed (node 1 failed: RuntimeError: no luck)" in done.stdout
    (failed,) = (event for event in lines(out, "events") if event["event"] == "failed")
    assert "own.py" in failed["traceback"]


def test_a_deadlock_is_a_verdict(file: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(
        "import math\n"
        "from dataclasses import dataclass\n"
        "from tidings import Node, Protocol, Weights\n\n"
        "@dataclass(frozen=True)\n"
        "class Stuck(Protocol):\n"
        "    async def run(self, node: Node) -> None:\n"
        "        await node.recv(Weights, math.inf)\n"
    )
    for command in ("simulate", "run"):
        out = tmp_path / command
        setting = ["--set", "protocol={kind: own.py:Stuck}", "--set", "network.probe=false"]
        done = tidings(command, str(file), "--out", str(out), "--quiet", *setting)
        assert done.returncode == 1
        assert "nothing can run and no timer is pending" in done.stdout
        assert "node 3: the next Weights since" in done.stdout


def test_an_address_that_is_not_ours_is_refused_and_nothing_is_left(
    file: Path, tmp_path: Path
) -> None:
    # of TEST-NET-1, which no machine has
    for serve in ("true", "false"):
        out = tmp_path / "run"
        setting = ["--set", "launcher.host=192.0.2.1", "--set", f"metrics.serve={serve}"]
        done = tidings("run", str(file), "--out", str(out), "--quiet", *setting)
        assert done.returncode == 2
        assert "cannot listen on 192.0.2.1" in done.stderr
        assert "Traceback" not in done.stderr
        assert not out.exists()
