"""One run's directory from its first file to its result, whoever conducts the run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidings.errors import RecordError, UserError
from tidings_coordinator.control.entrance import uses_tls
from tidings_coordinator.control.watch import Watcher
from tidings_coordinator.experiment.dump import dump
from tidings_coordinator.planning import RunPlan
from tidings_coordinator.records.directory import RunDirectory, environment
from tidings_coordinator.records.result import Ending, result


@dataclass(frozen=True)
class Commission:
    """A whole run that somebody is to conduct."""

    run: RunPlan
    #: the experiment file as given, and its directory
    source: str
    base: Path
    #: the run directory, not made yet
    path: Path
    watcher: Watcher


@contextmanager
def kept(commission: Commission) -> Iterator[RunDirectory]:
    """The run directory with all that is known before the run.

    It is removed again where a UserError ends the block: nothing has been started then.
    """
    run, path = commission.run, commission.path
    with RunDirectory.create(path) as directory:
        try:
            directory.write("experiment.yaml", commission.source)
            directory.write("resolved.yaml", dump(run.experiment))
            facts = {"run_id": run.run, "security": {"tls": uses_tls(run.experiment)}}
            directory.write_json("environment.json", environment(commission.base) | facts)
            directory.write_json("graph.json", _graph(run))
            yield directory
        except UserError:
            directory.close()
            shutil.rmtree(path)
            raise


def finish(
    run: RunPlan, ending: Ending, directory: RunDirectory, watcher: Watcher
) -> dict[str, Any]:
    """Write down what the run came to: its result."""
    _keep(directory, "fidelity.json", ending.fidelity, watcher)
    # all records are there now, and what the run came to is what they say
    found = result(run, ending, directory.path)
    _keep(directory, "result.json", found, watcher)
    return found


def _keep(directory: RunDirectory, name: str, data: object, watcher: Watcher) -> None:
    try:
        directory.write_json(name, data)
    except RecordError as error:
        # most likely the reason why the run failed in the first place
        watcher.say(str(error))


def _graph(run: RunPlan) -> dict[str, object]:
    schedule = run.schedule
    return {
        "nodes": len(run.nodes),
        "directed": schedule.union.directed,
        "synchronous": run.experiment.protocol.synchronous,
        "evaluated_by_time": run.evaluated_by_time,
        "roles": list(run.roles),
        "byzantine": list(run.byzantine),
        "layout": [[round(float(x), 4), round(float(y), 4)] for x, y in run.layout],
        "arcs": sorted(schedule.union.arcs),
        "phases": len(schedule.phases),
        "rounds_per_phase": schedule.every,
        "spectral_gap": schedule.facts().spectral_gap,
    }
