"""One experiment from file to report, whatever carries it."""

from __future__ import annotations

import asyncio
import shutil
import signal
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from tidings.errors import RecordError, RunError, UserError
from tidings.runtime.node import RuntimeNode
from tidings.runtime.simulation import Observer, Simulated, simulate
from tidings.v1 import records_pb2 as records
from tidings_coordinator.control import fidelity
from tidings_coordinator.control.conductor import Conductor
from tidings_coordinator.control.stopping import StopRule
from tidings_coordinator.control.watch import NodeView, RunView, Watcher
from tidings_coordinator.experiment.dump import dump
from tidings_coordinator.experiment.model import Experiment
from tidings_coordinator.monitoring.discovery import Discovery
from tidings_coordinator.planning import RunPlan, plan
from tidings_coordinator.records.directory import RunDirectory, environment, read_json
from tidings_coordinator.records.result import Ending, Verdict, result

#: wall seconds between two looks at a simulated run
_SHOW_S = 0.25


@dataclass(frozen=True)
class Outcome:
    """A finished run."""

    directory: Path
    result: dict[str, Any]

    @property
    def exit_code(self) -> int:
        """0: completed, and the network was what was asked for; 130: aborted; 1: all else."""
        if self.result["run"] == "aborted":
            return 130
        return 0 if self.result["run"] == "completed" and self.result["checks"] != "fail" else 1


def default_directory(experiment: Experiment, root: Path) -> Path:
    """``runs/NAME-TIME``, with a number where two runs begin in the same second."""
    stem = f"{experiment.name}-{datetime.now():%Y%m%d-%H%M%S}"
    for number in range(1, 1000):
        path = root / (stem if number == 1 else f"{stem}-{number}")
        if not path.exists():
            return path
    return root / f"{stem}-{uuid.uuid4().hex[:8]}"


def run_experiment(
    experiment: Experiment, source: str, path: Path, watcher: Watcher, base: Path
) -> Outcome:
    """Run to the end and write everything down but the report.

    ``source`` is the experiment file as given, ``base`` its directory. Raises UserError before
    anything is started; what goes wrong later is in the result.
    """
    run = plan(experiment, f"{experiment.name}-{uuid.uuid4().hex[:8]}")
    experiment.launcher.check(experiment.nodes)
    delegate = experiment.launcher.delegate()
    if delegate is not None:
        return Outcome(*delegate(run, path, watcher))
    try:
        return _run(run, source, path, watcher, base)
    except UserError:
        # nothing has been started, so there is nothing to keep
        if read_json(path, "graph.json") is not None and read_json(path, "result.json") is None:
            shutil.rmtree(path)
        raise


def _run(run: RunPlan, source: str, path: Path, watcher: Watcher, base: Path) -> Outcome:
    experiment = run.experiment
    with RunDirectory.create(path) as directory:
        directory.write("experiment.yaml", source)
        directory.write("resolved.yaml", dump(experiment))
        directory.write_json("environment.json", environment(base))
        directory.write_json("graph.json", _graph(run))
        began = time.monotonic()
        if experiment.launcher.virtual:
            ending = _simulate(run, directory, watcher, began)
        else:
            ending = asyncio.run(_conduct(run, directory, watcher, began))
        outcome = result(run, ending, path)
        try:
            directory.write_json("fidelity.json", ending.fidelity)
            directory.write_json("result.json", outcome)
        except RecordError as error:
            # most likely the reason why the run failed in the first place
            watcher.say(str(error))
        return Outcome(path, outcome)


def _graph(run: RunPlan) -> dict[str, object]:
    schedule = run.schedule
    return {
        "nodes": len(run.nodes),
        "directed": schedule.union.directed,
        "synchronous": run.experiment.protocol.synchronous,
        "roles": list(run.roles),
        "byzantine": list(run.byzantine),
        "layout": [[round(float(x), 4), round(float(y), 4)] for x, y in run.layout],
        "arcs": sorted(schedule.union.arcs),
        "phases": len(schedule.phases),
        "rounds_per_phase": schedule.every,
        "spectral_gap": schedule.facts().spectral_gap,
    }


# -- real nodes ------------------------------------------------------------------------------------


async def _conduct(run: RunPlan, directory: RunDirectory, watcher: Watcher, began: float) -> Ending:
    conductor = Conductor(run, run.experiment.launcher.group(), directory, watcher)
    aborted: list[str] = []

    def abort(name: str) -> None:
        watcher.say("ending the run; once more to end it at once" if not aborted else "ending")
        aborted.append(name)
        conductor.abort(f"aborted by {name}")

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, abort, signal.Signals(number).name)
    discovery = Discovery(run, conductor.targets)
    try:
        if run.experiment.metrics.serve:
            directory.event("discovery", 0.0, url=discovery.serve(run.experiment.launcher.host))
        conducted = await conductor.conduct()
    finally:
        discovery.close()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
    verdict: Verdict = "completed"
    if conducted.error is not None:
        verdict = "aborted" if aborted else "failed"
    return Ending(
        run=verdict,
        reason=str(conducted.error) if conducted.error else conducted.reason,
        finals=conducted.finals,
        time_s=conducted.time_s,
        wall_s=time.monotonic() - began,
        fidelity=fidelity.report(run, conducted.measured, conducted.finals),
        control_plane_bytes=conducted.control_bytes,
    )


# -- virtual time ----------------------------------------------------------------------------------


class _Recorder(Observer):
    """Writes a simulated run down, and stops it by the experiment's rules."""

    def __init__(self, run: RunPlan, directory: RunDirectory, watcher: Watcher) -> None:
        self._directory = directory
        self._watcher = watcher
        self._rule = StopRule(run.experiment.stop, run.honest)
        self._shown = 0.0
        self.view = RunView(
            run.experiment.name,
            phase="simulating",
            target_rounds=run.experiment.stop.rounds,
            nodes={node.node: NodeView("computing") for node in run.nodes},
            honest=run.honest,
        )

    def evaluation(self, row: records.Evaluation) -> str | None:
        self._directory.evaluation(row)
        view = self.view.nodes[row.node]
        view.round = row.round
        view.accuracy = row.metrics.get("accuracy", view.accuracy)
        view.loss = row.metrics.get("loss", view.loss)
        return self._rule.row(row)

    def progress(self, time_s: float, nodes: Sequence[RuntimeNode]) -> str | None:
        now = time.monotonic()
        if now >= self._shown + _SHOW_S:
            self._shown = now
            self.view.time_s = time_s
            for node in nodes:
                view = self.view.nodes[node.id]
                view.round, view.sent_bytes = node.ledger.completed, node.ledger.sent().total
            self._watcher.show(self.view)
        if self._rule.needs_bytes:
            return self._rule.sent(sum(node.ledger.sent().total for node in nodes))
        return None

    def event(self, event: records.Event) -> None:
        fields = {} if not event.fields else {"fields": event.fields}
        self._directory.event(event.name, event.time_s, event.node, **fields)


def _simulate(run: RunPlan, directory: RunDirectory, watcher: Watcher, began: float) -> Ending:
    torch.set_num_threads(1)
    recorder = _Recorder(run, directory, watcher)
    stop = run.experiment.stop.time
    tie_seed = getattr(run.experiment.launcher, "tie_seed", None)
    done: Simulated | None = None
    verdict: Verdict = "completed"
    reason: str | None = None
    try:
        done = simulate(
            run.nodes,
            recorder,
            stop_s=None if stop is None else float(stop),
            tie_seed=tie_seed,
        )
        reason = done.reason
    except RunError as error:
        verdict, reason = "failed", str(error)
    except KeyboardInterrupt:
        verdict, reason = "aborted", "aborted by SIGINT"
    finals = done.finals if done else []
    for final in finals:
        directory.final(final)
    return Ending(
        run=verdict,
        reason=reason,
        finals=finals,
        time_s=done.time_s if done else recorder.view.time_s,
        wall_s=time.monotonic() - began,
        fidelity=fidelity.virtual(),
        trace_hash=done.trace_hash if done else None,
    )
