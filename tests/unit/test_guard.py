"""The process between a launcher and a rank, which writes down how the rank ended."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tidings.runtime.guard import RankExit, path_in, read_exits
from tidings_coordinator.launchers.base import Exit
from tidings_coordinator.launchers.job import report_exits

RANK = """
import os, signal, sys, time
from tidings.runtime.guard import stand_guard
stand_guard()(sys.argv[1], 3)
signal.signal(signal.SIGTERM, lambda number, frame: os._exit(7))
print(os.getpid(), flush=True)
exec(sys.argv[2])
"""


def guarded(logs: Path, does: str) -> tuple[subprocess.Popen[str], int]:
    """A guard, and the process id of its rank once that goes."""
    process = subprocess.Popen(
        [sys.executable, "-c", RANK, str(logs), does], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process.stdout as said:
        return process, int(said.readline())


@pytest.mark.parametrize(
    ("does", "code"),
    [("os._exit(0)", 0), ("os._exit(5)", 5), ("os.kill(os.getpid(), 9)", -9), ("os.abort()", -6)],
)
def test_a_guard_writes_down_how_its_rank_ended_and_ends_likewise(
    does: str, code: int, tmp_path: Path
) -> None:
    process, _ = guarded(tmp_path, does)
    assert process.wait(60) == code
    (found,) = read_exits(tmp_path)
    assert (found.node, found.code, found.told) == (3, code, False)
    assert abs(found.time_s - time.time()) < 60


def test_a_rank_that_is_told_to_end_has_not_died(tmp_path: Path) -> None:
    process, _ = guarded(tmp_path, "time.sleep(100)")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 7
    assert read_exits(tmp_path)[0].told


def test_a_rank_does_not_outlive_its_guard(tmp_path: Path) -> None:
    process, rank = guarded(tmp_path, "time.sleep(100)")
    process.kill()
    process.wait(60)
    deadline = time.monotonic() + 20
    while Path(f"/proc/{rank}").exists() and "Z" not in _state(rank):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert read_exits(tmp_path) == []


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_the_first_death_is_reported_first_and_those_told_are_not(tmp_path: Path) -> None:
    notes = [
        RankExit(0, 143, True, 0.5),
        RankExit(1, -9, False, 2.0),
        RankExit(2, -11, False, 1.0),
        RankExit(3, 0, False, 0.1),
    ]
    for note in notes:
        path_in(tmp_path, note.node).write_text(json.dumps(note.__dict__))

    async def report() -> list[object]:
        exits: asyncio.Queue[object] = asyncio.Queue()
        ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        ended.set_result(os.EX_SOFTWARE)
        assert await report_exits(ended, tmp_path, exits)  # type: ignore[arg-type]
        return [exits.get_nowait() for _ in range(exits.qsize())]

    assert asyncio.run(report()) == [Exit(2, -11), Exit(1, -9)]
