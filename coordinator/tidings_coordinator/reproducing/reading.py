"""Measuring finished runs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tidings.errors import RunError
from tidings_coordinator.records.reading import Run
from tidings_coordinator.records.series import Goal, Point, cost_to
from tidings_coordinator.records.standing import standing
from tidings_coordinator.report import costs
from tidings_coordinator.reproducing.declaration import Row


def value(point: Point, metric: str) -> float:
    """A metric's mean over the honest nodes; infinite where it was not finite (a divergence)."""
    found = point.metrics.get(metric)
    return found.mean if found is not None and math.isfinite(found.mean) else math.inf


def final(run: Run, metric: str) -> float:
    """The metric at the end of a run."""
    return value(run.points[-1], metric)


def best(run: Run, metric: str) -> float:
    """The least value that the metric had at an evaluation."""
    return min(value(point, metric) for point in run.points)


def costs_to(run: Run, metric: str, target: float, cost: costs.Cost = "rounds") -> float:
    """What it took until the metric reached ``target``; infinite where it never did.

    An accuracy is to be at least the target, every other metric at most.
    """
    found = cost_to(Goal(metric, target), run.points)
    return math.inf if found is None else found[costs.KEYS[cost]]


def cell(rows: Sequence[Row], name: str, column: str) -> float:
    """A number of the measured table, by what its row has in the first column."""
    for row in rows:
        if next(iter(row.values())) == name:
            return float(row[column])
    raise RunError(f"no row '{name}' was measured")


def of_node(run: Run, node: int, metric: str) -> tuple[list[float], list[float]]:
    """When one node (a server, say) was evaluated, in seconds, and what a metric was then."""
    rows = [row for row in standing(run.path, "series") if row["node"] == node]
    return [row["time_s"] for row in rows], [row["metrics"][metric] for row in rows]
