"""One run as the command line shows it: while it goes on, summed up, and as a report."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tidings.errors import MissingExtra, TidingsError, UserError
from tidings_coordinator import attending
from tidings_coordinator.control.watch import Watcher
from tidings_coordinator.experiment.load import load
from tidings_coordinator.experiment.model import Experiment
from tidings_coordinator.records.directory import read_json
from tidings_coordinator.records.result import exit_code
from tidings_coordinator.running import Outcome, default_directory, run_experiment
from tidings_coordinator.terminal import summary, watcher

#: where run directories are made
RUNS = Path("runs")
#: goes on with the run in a directory
Work = Callable[[Path, Watcher], Outcome]


class Ended(Exception):
    """A command is over; the only argument is its exit code."""


def run_one(
    experiment: Experiment, file: Path, out: Path | None, quiet: bool, report: bool = True
) -> Outcome:
    """Run an experiment to its end, show it and write its report, where that is wanted.

    Ended, with the exit code, where a coordinator in a child process has come to no result.
    """
    path = out or default_directory(experiment, RUNS)
    if attending.wanted(experiment):
        begin = partial(_run_one, experiment, file, path, quiet, report)
        code = _attended(lambda: begin().exit_code, path, experiment)
        found = read_json(path, "result.json")
        if found is None or exit_code(found) != code:
            # it came to nothing; what is there may be of another run
            raise Ended(code)
        return Outcome(path, found)
    return _run_one(experiment, file, path, quiet, report)


def _run_one(experiment: Experiment, file: Path, path: Path, quiet: bool, report: bool) -> Outcome:
    show = watcher(quiet)
    try:
        source = file.read_text(encoding="utf-8")
        outcome = run_experiment(experiment, source, path, show, file.resolve().parent)
    finally:
        show.close()
    summary(outcome.result)
    if report:
        write_report(outcome.directory)
    return outcome


def write_report(directory: Path) -> None:
    """Write a run's report and trace, and say where."""
    from tidings_coordinator.report import page
    from tidings_coordinator.report.trace import write_trace

    write_trace(directory)
    try:
        print(f"report: {page.write_report(directory)}")
    except MissingExtra as error:
        print(f"run directory: {directory} (no report: {error})")


def see_through(work: Work, directory: Path, quiet: bool) -> int:
    """Show a run that goes on in its directory, and sum it up; the exit code."""
    file = directory / "resolved.yaml"
    if file.exists() and attending.wanted(experiment := load(file)):
        return _attended(partial(_go_on, work, directory, quiet), directory, experiment)
    return _go_on(work, directory, quiet)


def _go_on(work: Work, directory: Path, quiet: bool) -> int:
    """The exit code of a run that goes on in its directory."""
    show = watcher(quiet)
    try:
        outcome = work(directory, show)
    finally:
        show.close()
    summary(outcome.result)
    write_report(outcome.directory)
    return outcome.exit_code


def _attended(begin: Callable[[], int], path: Path, experiment: Experiment) -> int:
    """The exit code of a run that has its coordinator killed."""
    from tidings_coordinator.adopting import adopt as take_over

    succeed = partial(_go_on, take_over, path, True)
    scale = experiment.network.time_scale
    return attending.attended(partial(code_of, begin), partial(code_of, succeed), path, scale)


def code_of(work: Callable[[], int]) -> int:
    """What a piece of work ends as; the user is told of errors that are part of the contract."""
    try:
        return work()
    except Ended as ended:
        return int(ended.args[0])
    except TidingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    except KeyboardInterrupt:
        print("aborted", file=sys.stderr)
        return 130
