"""A whole run as a Slurm job: submit it, follow it, collect what it leaves in the run directory."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidings.errors import RunError, UserError
from tidings_coordinator.control.watch import Watcher
from tidings_coordinator.experiment.dump import dump
from tidings_coordinator.records.directory import read_json

if TYPE_CHECKING:
    from tidings_coordinator.planning import RunPlan
    from tidings_coordinator.records.keeping import Commission

_LOOK_S = 1.0
_COMMAND_S = 60.0
#: how late a file that a job wrote may show up here
_SHARED_S = 20.0
_OVER = frozenset(
    {"", "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "BOOT_FAIL", "OUT_OF_MEMORY"}
)

#: A requeued job is a new run in a directory of its own: nothing is ever overwritten.
_SCRIPT = """\
#!/bin/sh
out={out}
if [ "${{SLURM_RESTART_COUNT:-0}}" -gt 0 ]; then out="$out-restart-$SLURM_RESTART_COUNT"; fi
# exec, so that scancel's SIGTERM reaches the coordinator, which ends the run in order
exec {tidings} run {file} --out "$out" --quiet
"""


def submit(commission: Commission, options: Sequence[str]) -> tuple[Path, dict[str, Any]]:
    """Run it as a job; the run directory and its result. RunError where the job left none.

    The run directory must be in one that the job's machines share with this one.
    """
    run, path, watcher = commission.run, commission.path.resolve(), commission.watcher
    if path.exists():
        raise UserError(f"{path} exists already")
    job = path.with_name(f"{path.name}.job")
    if job.exists():
        raise UserError(f"{job} exists already")
    job.mkdir(parents=True)
    number = _sbatch(run, path, job, options)
    watcher.say(f"submitted as job {number}; its output is in {job}")
    state = _follow(number, watcher)
    found = _result(path)
    if found is None:
        raise RunError(f"job {number} has ended ({state or 'gone'}) without a result; see {job}")
    return found


def _sbatch(run: RunPlan, path: Path, job: Path, options: Sequence[str]) -> str:
    experiment, script = job / "experiment.yaml", job / "job.sh"
    experiment.write_text(dump(run.experiment), encoding="utf-8")
    script.write_text(
        _SCRIPT.format(
            out=shlex.quote(str(path)),
            tidings=shlex.join([sys.executable, "-m", "tidings_coordinator.cli"]),
            file=shlex.quote(str(experiment)),
        ),
        encoding="utf-8",
    )
    command = ["sbatch", "--parsable", f"--job-name={run.experiment.name}", "--requeue"]
    command += [f"--ntasks={len(run.nodes)}", "--open-mode=append", f"--output={job}/%j.log"]
    done = _run([*command, *options, str(script)])
    if done.returncode != 0:
        raise UserError(f"sbatch refuses: {done.stderr.strip()}")
    return done.stdout.strip().split(";")[0]


def _follow(number: str, watcher: Watcher) -> str:
    """Until the job is over; its last state. Ctrl-C and SIGTERM cancel the job."""
    cancelled: list[int] = []

    def cancel(signum: int, frame: object) -> None:
        cancelled.append(signum)

    before = {s: signal.signal(s, cancel) for s in (signal.SIGINT, signal.SIGTERM)}
    state, shown, told = "PENDING", "", 0
    try:
        while state not in _OVER:
            if len(cancelled) > told:
                told = len(cancelled)
                watcher.say(f"cancelling job {number}")
                _run(["scancel", number])
            state = _state(number)
            if state != shown:
                watcher.say(f"job {number}: {(state or 'gone').lower()}")
                shown = state
            time.sleep(_LOOK_S)
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
    return state


def _state(number: str) -> str:
    done = _run(["squeue", "--noheader", "--states=all", f"--jobs={number}", "--format=%T"])
    if done.returncode != 0 and "Invalid job id" not in done.stderr:
        # the controller may be busy; a job is not over because nobody answers
        return "UNKNOWN"
    return done.stdout.strip()


def _result(path: Path) -> tuple[Path, dict[str, Any]] | None:
    """The latest run of the job that has a result."""
    deadline = time.monotonic() + _SHARED_S
    while True:
        tries = sorted(path.parent.glob(f"{path.name}-restart-*"), key=_restart, reverse=True)
        for directory in (*tries, path):
            found = read_json(directory, "result.json")
            if found is not None:
                return directory, found
        if not path.exists() or time.monotonic() > deadline:
            return None
        time.sleep(_LOOK_S)


def _restart(path: Path) -> int:
    return int(path.name.rpartition("-")[2])


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=_COMMAND_S, check=False
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"{command[0]} does not answer")
