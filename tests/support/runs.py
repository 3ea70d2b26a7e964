"""The command line as users have it: real processes, run directories, nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from support.warm import NODE, Command, Process
from tidings.runtime.main import ONE_THREAD

#: a run that is not over by then has failed; longer on a machine that is busy with other things
DEADLINE_S = float(os.environ.get("TIDINGS_TEST_DEADLINE_S", "120"))

EXAMPLES = Path(__file__).parents[2] / "examples"

#: small, quick, and shaped all the same
SMALL = """
name: small
nodes: 4
network: {rate: 50Mbit/s, delay: 2ms, tolerance: {delay: 20ms}}
problem: {kind: digits, hidden: 16}
protocol: {kind: d_psgd, lr: 0.1}
stop: {rounds: 12}
evaluate: {every: 4}
target: {accuracy: 30%}
"""


def command(*arguments: str, python: str = sys.executable) -> list[str]:
    """``tidings ARGUMENTS`` with this interpreter, or another one."""
    return [python, "-m", "tidings_coordinator.cli", *arguments]


def tidings(
    *arguments: str,
    cwd: Path | None = None,
    deadline_s: float = DEADLINE_S,
    python: str = sys.executable,
    variables: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    if python == sys.executable:
        warm = Command(arguments, cwd, variables)
        try:
            out, err = warm.communicate(deadline_s)
        finally:
            warm.kill()
        return subprocess.CompletedProcess(arguments, warm.wait(), out, err)
    return subprocess.run(
        command(*arguments, python=python),
        capture_output=True,
        text=True,
        timeout=deadline_s,
        cwd=cwd,
        env=variables,
        check=False,
    )


@contextmanager
def started(*arguments: str) -> Iterator[Command]:
    """A command while it runs; killed with the block, if it has not ended."""
    process = Command(arguments)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def node(
    stack: ExitStack, *arguments: str, log: Path, join: Mapping[str, str] | None = None
) -> Process:
    """A node process that does not outlive the stack; ``join`` is in its environment."""
    log.touch()
    variables = os.environ | ONE_THREAD | dict(join or {})
    process = Process(NODE, arguments, None, variables, [str(log), str(log)])
    stack.callback(process.wait, DEADLINE_S)
    stack.callback(process.kill)
    return process


def finish(process: Command) -> tuple[int, str, str]:
    """Wait for a command; its exit code and what it wrote."""
    out, err = process.communicate(timeout=DEADLINE_S)
    return process.wait(), out, err


def wait_for_event(directory: Path, name: str, count: int = 1) -> list[dict[str, Any]]:
    """Wait until the run has logged an event that often; those events."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        found = [event for event in lines(directory, "events") if event["event"] == name]
        if len(found) >= count:
            return found
        time.sleep(0.01)
    raise AssertionError(f"no event {name} in {directory} within {DEADLINE_S} s")


def lines(directory: Path, name: str) -> list[dict[str, Any]]:
    """The whole lines of a file of the run."""
    file = directory / f"{name}.jsonl"
    text = file.read_text() if file.exists() else ""
    return [json.loads(line) for line in text.split("\n")[:-1]]


def result(directory: Path) -> dict[str, Any]:
    """result.json"""
    return json.loads((directory / "result.json").read_text())  # type: ignore[no-any-return]


def node_processes(run_directory: Path) -> dict[int, int]:
    """Process id by node, of the run that writes into that directory."""
    found = {}
    for pid in _pids():
        for number in (1, 2):
            try:
                log = Path(os.readlink(f"/proc/{pid}/fd/{number}"))
            except OSError:
                continue
            if log.parent == run_directory / "logs" and log.stem.startswith("node-"):
                found[int(log.stem.removeprefix("node-"))] = pid
    return found


def restored(directory: Path) -> set[int]:
    """The nodes that have come back from a checkpoint; others may have lost step on the way."""
    back = [event for event in lines(directory, "events") if event["event"] == "rejoined"]
    return {event["node"] for event in back if json.loads(event["fields"]).get("restored")}


def descendants(pid: int) -> set[int]:
    """All processes below a process."""
    parents = {}
    for other in _pids():
        try:
            stat = Path(f"/proc/{other}/stat").read_text()
        except OSError:
            continue
        parents[other] = int(stat.rpartition(")")[2].split()[1])
    below: set[int] = set()
    while True:
        more = {p for p, parent in parents.items() if parent in below | {pid}} - below
        if not more:
            return below
        below |= more


def wait_until_gone(pids: set[int]) -> None:
    """Wait until none of these processes runs any more."""
    deadline = time.monotonic() + 20
    while alive := {pid for pid in pids if _runs(pid)}:
        assert time.monotonic() < deadline, f"still running: {alive}"
        time.sleep(0.01)


def send(pid: int, number: signal.Signals) -> None:
    """Signal a process that the test started."""
    os.kill(pid, number)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def listening_ports(pid: int) -> set[int]:
    """The TCP ports on which a process accepts connections."""
    inodes = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(entry)
        except OSError:
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    rows = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
    ]
    # state 0A: LISTEN
    return {int(row[1].split(":")[1], 16) for row in rows if row[3] == "0A" and row[9] in inodes}


def free_ports(count: int) -> list[int]:
    """Ports that nobody has now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
