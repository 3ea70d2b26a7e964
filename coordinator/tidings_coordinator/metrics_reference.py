"""The reference page of the Prometheus metrics, from what a small simulated run would serve."""

from __future__ import annotations

import types
from typing import Any, cast

from prometheus_client.metrics_core import Metric

from tidings.runtime.metrics import NodeMetrics
from tidings.runtime.observer import Observer
from tidings.runtime.simulation import simulate
from tidings.v1 import records_pb2 as records
from tidings_coordinator.experiment.load import loads
from tidings_coordinator.markdown import code, table
from tidings_coordinator.monitoring.live import LiveRun
from tidings_coordinator.monitoring.metrics import RunMetrics
from tidings_coordinator.planning import plan
from tidings_coordinator.records.directory import evaluation_line

#: labels whose values do not depend on the run
_FIXED_LABELS = ("kind", "quantile", "result", "state", "phase", "verdict")
#: has all that there are metrics for: links with rate and delay, evaluations, a target that is met
_EXPERIMENT = """
nodes: 2
topology: line
network: {rate: 1Mbit/s, delay: 1ms}
problem: {kind: quadratic, dim: 2}
protocol: {kind: d_psgd, lr: 0.1}
stop: {rounds: 1}
evaluate: {every: 1}
target: {loss: 1000000}
"""


class _Recorder(Observer):
    def __init__(self, live: LiveRun) -> None:
        self._live = live
        self.latest = records.Evaluation()

    def evaluation(self, row: records.Evaluation) -> str | None:
        self.latest = row
        self._live.line("series", evaluation_line(row))
        return None


def metric_tables() -> tuple[str, str]:
    """The metrics of a node, and those of the coordinator, as Markdown tables."""
    run = plan(loads(_EXPERIMENT), "reference")
    live = LiveRun(run, [])
    live.line("events", {"time_s": 0.0, "node": None, "event": "started"})
    fault = {"event": "split", "fault": "net.partition", "target": "0->1", "state": "active"}
    live.line("faults", fault | {"time_s": 0.0, "occurrence": 0})
    recorder = _Recorder(live)
    node = simulate(run.nodes, recorder).nodes[0]
    node.ledger.refused["late"] += 1
    world = types.SimpleNamespace(transport=node._world.transport, latest=recorder.latest)
    served = NodeMetrics(node, cast("Any", world)).collect(), RunMetrics(run, live).collect()
    of_node, of_run = (_table(list(metrics)) for metrics in served)
    return of_node, of_run


def _table(metrics: list[Metric]) -> str:
    rows = [
        (code(metric.samples[0].name), metric.type, _labels(metric), metric.documentation)
        for metric in metrics
        if metric.samples
    ]
    return table(["metric", "type", "labels", "meaning"], rows)


def _labels(metric: Metric) -> str:
    values: dict[str, dict[str, None]] = {}
    for sample in metric.samples:
        for label, value in sample.labels.items():
            values.setdefault(label, {})[value] = None
    return ", ".join(
        f"{code(label)} ({', '.join(seen)})" if label in _FIXED_LABELS else code(label)
        for label, seen in values.items()
    )
