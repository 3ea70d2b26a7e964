"""The coordinator's own Prometheus metrics: the run as a whole, from its records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from tidings_coordinator.monitoring.live import LiveRun
from tidings_coordinator.planning import RunPlan
from tidings_coordinator.records.series import Point

PHASES = (
    "starting nodes",
    "planning",
    "connecting",
    "measuring links",
    "running",
    "simulating",
    "collecting",
    "ending",
)
STATES = ("starting", "computing", "waiting", "finished", "dead")
VERDICTS = ("completed", "failed", "aborted")


class RunMetrics(Collector):
    """Run, experiment and protocol are labels of the target, given by service discovery.

    No label grows with rounds or nodes. What is said of the curve is exact: the records' own
    points, not what was true when somebody happened to scrape.
    """

    def __init__(self, run: RunPlan, live: LiveRun) -> None:
        self._run = run
        self._live = live

    def describe(self) -> list[Metric]:
        """Nothing in advance, so that registering does not collect."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All metric families as of now."""
        live, view = self._live, self._live.view
        yield self._about()
        yield _gauge("tidings_run_began_timestamp_seconds", "When it was begun.", live.began_s)
        yield _one_of("tidings_run_phase", "1 for what is going on now.", "phase",
                      PHASES, view.phase)  # fmt: skip
        verdict = None if live.result is None else live.result["run"]
        yield _one_of("tidings_run_verdict", "1 for what became of the run, at its end.",
                      "verdict", VERDICTS, verdict)  # fmt: skip
        yield _gauge("tidings_run_time_seconds", "Emulated time.", view.time_s)
        yield _gauge("tidings_run_round", "Rounds that every node has completed.", view.round)
        if view.target_rounds is not None:
            yield _gauge("tidings_run_rounds_asked", "Rounds to stop after.", view.target_rounds)
        yield self._states()
        yield CounterMetricFamily(
            "tidings_run_sent_bytes",
            "Bytes that all nodes have sent: as last heard, exact when the run is over.",
            view.sent_bytes,
        )
        yield CounterMetricFamily(
            "tidings_run_control_plane_bytes",
            "Bytes between coordinator and nodes, both ways.",
            view.control_bytes,
        )
        events = CounterMetricFamily(
            "tidings_run_events", "Lines of the event log, by name.", labels=["event"]
        )
        for name, count in dict(live.happened).items():
            events.add_metric([name], count)
        yield events
        faults = GaugeMetricFamily(
            "tidings_fault_active",
            "Targets on which a fault holds now, by event of the experiment file.",
            labels=["event", "fault"],
        )
        for labels, held in dict(live.faults).items():
            faults.add_metric(labels, len(held))
        yield faults
        yield from self._curve()
        yield _gauge("tidings_live_clients", "Browsers that watch.", live.hub.clients)
        yield CounterMetricFamily(
            "tidings_live_dropped_messages",
            "Messages that slow browsers did not get.",
            live.hub.dropped,
        )

    def _about(self) -> Metric:
        experiment = self._run.experiment
        return InfoMetricFamily(
            "tidings_run",
            "What is run.",
            {
                "topology": experiment.topology.kind,
                "problem": experiment.problem.kind,
                "launcher": experiment.launcher.kind,
                "nodes": str(experiment.nodes),
                "seed": str(experiment.seed),
            },
        )

    def _states(self) -> Metric:
        family = GaugeMetricFamily("tidings_run_nodes", "Nodes by state.", labels=["state"])
        found = Counter(node.state for node in list(self._live.view.nodes.values()))
        for state in STATES:
            family.add_metric([state], found.pop(state, 0))
        family.add_metric(["other"], found.total())
        return family

    def _curve(self) -> Iterator[Metric]:
        curve = self._live.curve
        if curve.goal is not None:
            target = GaugeMetricFamily(
                "tidings_run_target", "The goal whose cost is reported.", labels=["metric"]
            )
            target.add_metric([curve.goal.metric], curve.goal.value)
            yield target
        if curve.first is None or curve.last is None:
            return
        yield _means("tidings_run_first_evaluation", "Means over honest nodes at the start.",
                     curve.first)  # fmt: skip
        yield _means("tidings_run_evaluation", "Means over honest nodes at the last point.",
                     curve.last)  # fmt: skip
        for name, unit, text, value in (
            ("bytes", "bytes", "Bytes that all nodes had sent", curve.last.bytes["total"]),
            ("time", "seconds", "Emulated time", curve.last.time_s),
            ("round", "", "Rounds complete", curve.last.round),
        ):
            suffix = f"_{unit}" if unit and unit != name else ""
            yield _gauge(f"tidings_run_evaluation_{name}{suffix}", f"{text} at that point.", value)
        yield _gauge(
            "tidings_run_consensus_distance",
            "Mean squared distance of honest models from their mean at that point.",
            curve.last.consensus_distance,
        )
        if curve.cost is not None:
            for name, key in (("bytes", "bytes"), ("seconds", "time_s"), ("rounds", "rounds")):
                text = f"Cost of the target in {name}."
                yield _gauge(f"tidings_run_to_target_{name}", text, curve.cost[key])


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value)


def _one_of(name: str, text: str, label: str, of: tuple[str, ...], now: str | None) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for each in of:
        family.add_metric([each], float(each == now))
    return family


def _means(name: str, text: str, point: Point) -> Metric:
    family = GaugeMetricFamily(name, text, labels=["metric"])
    for metric, spread in point.metrics.items():
        family.add_metric([metric], spread.mean)
    return family
