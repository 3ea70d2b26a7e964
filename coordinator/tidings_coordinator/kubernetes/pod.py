"""What the coordinator does in its pod, and what takes the run out of its log again."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterable
from pathlib import Path

from tidings.errors import UserError
from tidings_coordinator.experiment.load import load
from tidings_coordinator.records.directory import RunDirectory
from tidings_coordinator.records.shipping import Collector, ShippedWatcher, shipment
from tidings_coordinator.running import run_experiment


def coordinate(file: Path, run_id: str, out: Path) -> int:
    """Run, write the directory to standard output; the exit code of the run."""
    experiment = load(file)
    source = file.read_text(encoding="utf-8")
    outcome = run_experiment(
        experiment, source, out, ShippedWatcher(), file.resolve().parent, run_id or None
    )
    # the run is over: whoever ends us now wants it more than he wants us gone
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ship(out)
    return outcome.exit_code


def ship(directory: Path) -> None:
    """Write a run directory to standard output. UserError where there is none."""
    if not directory.is_dir():
        raise UserError(f"there is no run directory {directory}")
    for line in shipment(directory):
        print(line)
    sys.stdout.flush()


def collect(lines: Iterable[str], directory: Path) -> None:
    """Make a run directory from a log. UserError where it must not be made, RecordError where the
    log does not hold a whole one."""
    collector = Collector()
    for line in lines:
        collector.feed(line.rstrip("\n"))
    with RunDirectory.create(directory):
        collector.unpack(directory)
