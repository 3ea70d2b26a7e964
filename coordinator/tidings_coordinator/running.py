"""One experiment from file to report, whatever carries it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from tidings.errors import ConfigError, RecordError, RunError
from tidings.runtime.node import RuntimeNode
from tidings.runtime.observer import Observer
from tidings.runtime.plan import ArmedFault
from tidings.runtime.simulation import Controls, Simulated, simulate
from tidings.v1 import records_pb2 as records
from tidings_coordinator import attending
from tidings_coordinator.control import fidelity
from tidings_coordinator.control.conductor import Conductor
from tidings_coordinator.control.stopping import StopRule
from tidings_coordinator.control.watch import NodeView, RunView, Watcher, Watchers
from tidings_coordinator.experiment.model import Experiment
from tidings_coordinator.faults.simulated import SimulatedFaults
from tidings_coordinator.monitoring.server import Monitor
from tidings_coordinator.planning import RunPlan, plan
from tidings_coordinator.records.directory import RunDirectory
from tidings_coordinator.records.keeping import Commission, finish, kept
from tidings_coordinator.records.reading import read
from tidings_coordinator.records.result import Ending, Verdict, exit_code
from tidings_coordinator.report.header import one_line

#: wall seconds between two looks at a simulated run
_SHOW_S = 0.25
#: spans of a node's timeline that are worth a line
_ENOUGH_SPANS = 50


@dataclass(frozen=True)
class Outcome:
    """A finished run."""

    directory: Path
    result: dict[str, Any]

    @property
    def exit_code(self) -> int:
        """As ``records.result.exit_code`` has it; 1 where nothing is known."""
        return exit_code(self.result) if self.result else 1


def default_directory(experiment: Experiment, root: Path) -> Path:
    """``runs/NAME-TIME``, with a number where two runs begin in the same second."""
    stem = f"{experiment.name}-{datetime.now():%Y%m%d-%H%M%S}"
    for number in range(1, 1000):
        path = root / (stem if number == 1 else f"{stem}-{number}")
        if not path.exists():
            return path
    return root / f"{stem}-{uuid.uuid4().hex[:8]}"


def run_experiment(
    experiment: Experiment,
    source: str,
    path: Path,
    watcher: Watcher,
    base: Path,
    run_id: str | None = None,
) -> Outcome:
    """Run to the end and write everything down but the report.

    ``source`` is the experiment file as given, ``base`` its directory; the run's id is made up
    where it is not given. Raises UserError before anything is started; what goes wrong later is in
    the result.
    """
    run = plan(experiment, run_id or f"{experiment.name}-{uuid.uuid4().hex[:8]}")
    conduct = experiment.launcher.delegate() or _run
    try:
        attending.check(run)
        experiment.launcher.check(run)
        return Outcome(*conduct(Commission(run, source, base, path, watcher)))
    except ConfigError as error:
        raise experiment.mistake(error) from error


def _run(commission: Commission) -> tuple[Path, dict[str, Any]]:
    """Conduct a run from here."""
    with kept(commission) as directory:
        run = commission.run.kept_in(directory.path)
        return directory.path, carry_out(run, directory, commission.watcher)


def carry_out(
    run: RunPlan, directory: RunDirectory, watcher: Watcher, adopting: bool = False
) -> dict[str, Any]:
    """Run to the end, from wherever the plans say; the result.

    ``adopting``: the nodes run already, and have lost their coordinator.
    """
    monitor = Monitor(run, one_line(read(directory.path)))
    began = time.monotonic()
    try:
        _open(monitor, run, directory, watcher)
        watcher = Watchers(watcher, monitor)
        if run.experiment.launcher.virtual:
            ending = _simulate(run, directory, watcher, began)
        else:
            ending = asyncio.run(_conduct(run, directory, watcher, monitor, began, adopting))
        found = finish(run, ending, directory, watcher)
        if run.experiment.monitor.serve:
            monitor.finish(found)
    finally:
        monitor.close()
    return found


def _open(monitor: Monitor, run: RunPlan, directory: RunDirectory, watcher: Watcher) -> None:
    """Let the run be watched, where that is asked for, and say where."""
    asked = run.experiment.monitor
    if not asked.serve:
        return
    directory.listeners.append(monitor.live.line)
    url = monitor.serve(asked.host, asked.port)
    directory.event("discovery", 0.0, url=f"{url}/sd", page=f"{url}/" if asked.page else None)
    if asked.page:
        watcher.say(f"live page: {url}/")


# -- real nodes ------------------------------------------------------------------------------------


async def _conduct(
    run: RunPlan,
    directory: RunDirectory,
    watcher: Watcher,
    monitor: Monitor,
    began: float,
    adopting: bool,
) -> Ending:
    launcher = run.experiment.launcher
    group = launcher.group()
    conductor = Conductor(run, group, directory, watcher, adopting)
    aborted: list[str] = []

    def abort(name: str) -> None:
        watcher.say("ending the run; once more to end it at once" if not aborted else "ending")
        aborted.append(name)
        conductor.abort(f"aborted by {name}")

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, abort, signal.Signals(number).name)
    monitor.targets = conductor.targets
    try:
        host = await group.prepare(run.run, len(run.nodes)) or launcher.host
        conducted = await conductor.conduct(host, monitor.seen_from(host))
    finally:
        await group.stop()
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
        security=conducted.security,
    )


# -- virtual time ----------------------------------------------------------------------------------


class _Recorder(Observer):
    """Writes a simulated run down, and stops it by the experiment's rules."""

    def __init__(self, run: RunPlan, directory: RunDirectory, watcher: Watcher) -> None:
        self._directory = directory
        self._watcher = watcher
        self._rule = StopRule(run.experiment.stop, run.honest)
        self.faults = SimulatedFaults(run, directory)
        self._rule.dead = self.faults.dead
        self._shown = 0.0
        self._nodes: Sequence[RuntimeNode] = ()
        #: why the run is to end, which who is isolated cannot say
        self._reason: str | None = None
        self.view = RunView(
            run.experiment.name,
            phase="simulating",
            target_rounds=run.experiment.stop.rounds,
            nodes={node.node: NodeView("computing") for node in run.nodes},
            honest=run.honest,
        )

    def activity(self, least: int = 0) -> None:
        """Write down what nodes have done, where there is that much of it."""
        for node in self._nodes:
            if node.timeline.pending >= least and (found := node.timeline.take()) is not None:
                self._directory.activity(found)

    def evaluation(self, row: records.Evaluation) -> str | None:
        self._directory.evaluation(row)
        view = self.view.nodes[row.node]
        view.round = row.round
        view.accuracy = row.metrics.get("accuracy", view.accuracy)
        view.loss = row.metrics.get("loss", view.loss)
        self.faults.row(row)
        return self._unless_isolated(self._rule.row(row))

    def progress(self, time_s: float, nodes: Sequence[RuntimeNode]) -> str | None:
        now = time.monotonic()
        self._nodes = nodes
        self.activity(_ENOUGH_SPANS)
        if now >= self._shown + _SHOW_S:
            self._shown = now
            self.show(time_s, nodes)
        self.faults.look()
        sent_bytes = (
            sum(node.ledger.sent().total for node in nodes) if self._rule.needs_bytes else 0
        )
        return self._unless_isolated(self._rule.sent(sent_bytes))

    def _unless_isolated(self, reason: str | None) -> str | None:
        self._reason = self._reason or reason
        return None if self.faults.isolated else self._reason

    def begun(self, controls: Controls) -> None:
        self.faults.begun(controls)

    def fault(self, change: records.FaultChange) -> None:
        self.faults.change(change)

    def arrived(self, node: int, armed: ArmedFault, round_: int) -> None:
        self.faults.arrived(node, armed, round_)

    def show(self, time_s: float, nodes: Sequence[RuntimeNode]) -> None:
        """Show the run as it stands."""
        self.view.time_s, self._nodes = time_s, nodes
        for node in nodes:
            view, waits = self.view.nodes[node.id], node.waiting.describe()
            view.round, view.sent_bytes = node.ledger.completed, node.ledger.sent().total
            view.state, view.waits_for = "waiting" if waits else "computing", "; ".join(waits)
            view.link_bytes = node.ledger.sent_by_link()
            if self.view.phase == "ending":
                view.state = "finished"
        self._watcher.show(self.view)

    def event(self, event: records.Event) -> None:
        fields = {} if not event.fields else {"fields": event.fields}
        self._directory.event(event.name, event.time_s, event.node, **fields)


#: what ends a run
_ENDING = (signal.SIGINT, signal.SIGTERM)


def _interrupt(number: int, frame: object) -> None:
    """SIGTERM ends a simulated run in the same way as Ctrl-C."""
    raise KeyboardInterrupt(signal.Signals(number).name)


def _simulate(run: RunPlan, directory: RunDirectory, watcher: Watcher, began: float) -> Ending:
    torch.set_num_threads(1)
    recorder = _Recorder(run, directory, watcher)
    stop = run.experiment.stop.time
    tie_seed = getattr(run.experiment.launcher, "tie_seed", None)
    done: Simulated | None = None
    verdict: Verdict = "completed"
    reason: str | None = None
    # SIGINT too, which who starts it in the background may have set to be ignored
    before = {number: signal.signal(number, _interrupt) for number in _ENDING}
    try:
        done = simulate(
            run.nodes,
            recorder,
            stop_s=None if stop is None else float(stop),
            tie_seed=tie_seed,
            start_s=run.start_s,
        )
        reason = done.reason
        recorder.faults.end("the end of the run")
        recorder.view.phase = "ending"
        recorder.show(done.time_s, done.nodes)
    except RunError as error:
        verdict, reason = "failed", str(error)
    except KeyboardInterrupt as error:
        verdict, reason = "aborted", f"aborted by {str(error) or signal.SIGINT.name}"
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    time_s = done.time_s if done else recorder.view.time_s
    # a full disk may be the reason
    with contextlib.suppress(RecordError):
        recorder.activity()
        directory.event("over", time_s, reason=reason)
    finals = done.finals if done else []
    for final in finals:
        directory.final(final)
    return Ending(
        run=verdict,
        reason=reason,
        finals=finals,
        time_s=time_s,
        wall_s=time.monotonic() - began,
        fidelity=fidelity.virtual(),
        trace_hash=done.trace_hash if done else None,
    )
