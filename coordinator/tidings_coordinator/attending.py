"""A coordinator in a child process, and who comes after it where the run wants it killed."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tidings.errors import UserError
from tidings.faults.coord_crash import CoordCrash
from tidings.runtime.forkserver import die_with_parent
from tidings_coordinator.experiment.model import Experiment
from tidings_coordinator.planning import RunPlan
from tidings_coordinator.records.directory import read_lines

#: whether this process is the child
_ATTENDED = False


def wanted(experiment: Experiment) -> bool:
    """Whether the coordinator of an experiment is to be killed."""
    kinds = (event.fault for event in experiment.faults)
    return not experiment.launcher.virtual and any(isinstance(f, CoordCrash) for f in kinds)


def check(run: RunPlan) -> None:
    """UserError where a coordinator would be killed that nobody attends to."""
    if wanted(run.experiment) and not _ATTENDED:
        raise UserError("'coord.crash' kills this process: use the command line, tidings run FILE")


def attended(begin: Callable[[], int], succeed: Callable[[], int], path: Path, scale: float) -> int:
    """What ``begin`` or, each time that the run in ``path`` has had it killed, ``succeed`` ends as.

    Both in a child process. ``scale`` is the experiment's time scale. A coordinator that somebody
    else has killed stays dead: 137.
    """
    code = _child(begin)
    while code == -signal.SIGKILL and (after_s := _pending_s(path)) is not None:
        time.sleep(after_s * scale)
        code = _child(succeed)
    if code == -signal.SIGKILL:
        print(f"error: the coordinator was killed; tidings adopt {path}", file=sys.stderr)
    return code if code >= 0 else 128 - code


def _pending_s(path: Path) -> float | None:
    """Emulated seconds after which somebody is to take over; None where that is not asked for."""
    last = None
    for line in read_lines(path, "faults"):
        if line["fault"] == CoordCrash.kind:
            last = line
    if last is None or last["state"] != "active":
        return None
    return float(last["detail"]["restart_after_s"])


def _child(work: Callable[[], int]) -> int:
    """Do it in a child process; its exit code, or minus the signal that killed it."""
    global _ATTENDED
    sys.stdout.flush()
    sys.stderr.flush()
    parent, pid = os.getpid(), os.fork()
    if pid == 0:
        code = 1
        try:
            _ATTENDED = True
            die_with_parent(parent, signal.SIGTERM)
            code = work()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    # of Ctrl-C the child hears too, and ends the run in order
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN),
        signal.SIGTERM: signal.signal(signal.SIGTERM, lambda number, frame: os.kill(pid, number)),
    }
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
