"""A run whose launcher is told to freeze, thaw and kill node 1: ``python signalled.py FILE OUT``.

A program of its own, for the coordinator of an MPI job needs the Python of that MPI. It prints what
it saw as JSON.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from support.runs import lines
from tidings_coordinator.control.conductor import Conductor
from tidings_coordinator.control.watch import Watcher
from tidings_coordinator.experiment.load import load
from tidings_coordinator.launchers.base import NodeGroup
from tidings_coordinator.planning import plan
from tidings_coordinator.records.keeping import Commission, kept

DEADLINE_S = 100.0
VICTIM = 1
#: how many rows the others write while the victim is out
_OTHERS = 9
#: what was on its way when the victim was stopped
_IN_FLIGHT = 2

Seen = dict[str, object]


class Rows:
    """The evaluations that a run has written down, by node."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def of(self, node: int) -> int:
        """How many a node has."""
        return sum(row["node"] == node for row in lines(self._directory, "series"))

    def others(self) -> int:
        """How many the other nodes have together."""
        return sum(row["node"] != VICTIM for row in lines(self._directory, "series"))

    async def until(self, count: Callable[[], int], least: int) -> None:
        """Wait until there are so many."""
        deadline = time.monotonic() + DEADLINE_S
        while count() < least:
            assert time.monotonic() < deadline, f"{count()} rows, not {least}"
            await asyncio.sleep(0.01)


async def freeze_and_thaw(group: NodeGroup, rows: Rows, seen: Seen) -> None:
    """A stopped node stands still while the others go on, and goes on afterwards."""
    await group.signal(VICTIM, signal.SIGSTOP)
    before = rows.of(VICTIM)
    await rows.until(rows.others, rows.others() + _OTHERS)
    seen["stood still"] = rows.of(VICTIM) <= before + _IN_FLIGHT
    await group.signal(VICTIM, signal.SIGCONT)
    await rows.until(lambda: rows.of(VICTIM), rows.of(VICTIM) + _OTHERS)
    seen["went on"] = True


async def conduct(file: Path, source: str, out: Path) -> Seen:
    """The run, from the start to the death of the victim."""
    experiment = load(file)
    run, launcher = plan(experiment, f"signalled-{uuid.uuid4().hex[:8]}"), experiment.launcher
    launcher.check(run)
    seen: Seen = {}
    with kept(Commission(run, source, file.parent, out, Watcher())) as directory:
        group = launcher.group()
        conductor = Conductor(run, group, directory, Watcher())
        host = await group.prepare(run.run, len(run.nodes)) or launcher.host
        conducting = asyncio.ensure_future(conductor.conduct(host))
        rows = Rows(out)

        async def interfere() -> None:
            await rows.until(lambda: min(map(rows.of, range(len(run.nodes)))), 2)
            await freeze_and_thaw(group, rows, seen)
            await group.signal(VICTIM, signal.SIGKILL)

        interfering = asyncio.ensure_future(interfere())
        await asyncio.wait([conducting, interfering], return_when=asyncio.FIRST_EXCEPTION)
        if not conducting.done():
            conductor.abort("the test has failed")
        seen["error"] = str((await conducting).error)
        interfering.cancel()
        await asyncio.wait([interfering])
        if not interfering.cancelled() and interfering.exception():
            seen["problem"] = repr(interfering.exception())
    return seen


def main() -> None:
    """Entry point."""
    file, out = map(Path, sys.argv[1:])
    print(json.dumps(asyncio.run(conduct(file, file.read_text(), out))))


if __name__ == "__main__":
    main()
