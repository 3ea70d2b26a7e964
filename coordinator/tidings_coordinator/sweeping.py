"""``tidings sweep``: every combination of some settings, each with several seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from tidings.errors import UserError
from tidings_coordinator.experiment.load import expand, load
from tidings_coordinator.experiment.model import Experiment
from tidings_coordinator.planning import plan
from tidings_coordinator.running import Outcome

#: exit codes, the worst last
_SEVERITY = (0, 3, 4, 1, 130)

RunOne = Callable[[Experiment, Path, Path], Outcome]


def sweep(
    file: Path,
    fixed: Sequence[str],
    overrides: Sequence[str],
    seeds: int,
    out: Path | None,
    run_one: RunOne,
) -> tuple[Path, list[Path], int]:
    """Run all combinations one after the other; where, the run directories, the worst exit code.

    All settings are validated before the first run is started.
    """
    if seeds < 1:
        raise UserError(f"--seeds is a number from 1 on, got {seeds}")
    jobs: list[tuple[str, Experiment]] = []
    for setting in expand(overrides):
        first = load(file, [*fixed, *setting]).seed
        for seed in range(first, first + seeds):
            words = [*setting, f"seed={seed}"]
            experiment = load(file, [*fixed, *words])
            plan(experiment, "check")
            jobs.append((_label(words), experiment))
    directory = out or Path("runs") / f"sweep-{file.stem}-{datetime.now():%Y%m%d-%H%M%S}"
    runs: list[Path] = []
    worst = 0
    for number, (label, experiment) in enumerate(jobs, start=1):
        print(f"[{number}/{len(jobs)}] {label}", flush=True)
        outcome = run_one(experiment, file, directory / f"{number:03d}-{label}")
        runs.append(outcome.directory)
        worst = max(worst, outcome.exit_code, key=_SEVERITY.index)
        if outcome.result["run"] == "aborted":
            break
    return directory, runs, worst


def _label(setting: Sequence[str]) -> str:
    """A directory name that says what differs: 'kind=d_psgd,rate=10Mbit,seed=0'."""
    words = [
        f"{key.split('.')[-1]}={value}" for key, _, value in (s.partition("=") for s in setting)
    ]
    return "".join(c if c.isalnum() or c in "=.,_-" else "_" for c in ",".join(words))[:120]
