"""The curve of a run while it grows: the same points that its records will give."""

from __future__ import annotations

from typing import Any

from tidings_coordinator.planning import RunPlan
from tidings_coordinator.records.result import goal_of
from tidings_coordinator.records.series import Point, cost_to, point_of

#: beyond that many points every second one is forgotten
_MAX_POINTS = 2000
#: rounds that are known of some nodes only
_MAX_OPEN = 256


class GrowingCurve:
    """Takes the series row by row, as it is written; see ``records.series.curve``."""

    def __init__(self, run: RunPlan) -> None:
        self._nodes = len(run.nodes)
        self._byzantine = set(run.byzantine)
        self._synchronous = run.experiment.protocol.synchronous
        self._rows = 0
        #: synchronous: round -> node -> row; else the latest row of each node, under 0
        self._open: dict[int, dict[int, dict[str, Any]]] = {}
        self.goal = goal_of(run)
        self.points: list[Point] = []
        self.first: Point | None = None
        self.last: Point | None = None
        #: bytes, seconds and rounds to the goal, once it has been met
        self.cost: dict[str, float] | None = None

    def add(self, row: dict[str, Any]) -> Point | None:
        """Take a row; the point that it completes, if it does."""
        self._rows += 1
        key = row["round"] if self._synchronous else 0
        group = self._open.setdefault(key, {})
        group[row["node"]] = row
        if len(group) < self._nodes:
            if len(self._open) > _MAX_OPEN:
                # rounds that a dead node will never complete
                del self._open[min(self._open)]
            return None
        if self._synchronous:
            del self._open[key]
        elif self._rows % self._nodes:
            return None
        return self._complete(group)

    def _complete(self, group: dict[int, dict[str, Any]]) -> Point:
        point = point_of([row for _, row in sorted(group.items())], self._byzantine)
        self.first = self.first or point
        self.last = point
        if self.cost is None and self.goal is not None:
            self.cost = cost_to(self.goal, [point])
        self.points.append(point)
        if len(self.points) > _MAX_POINTS:
            self.points = self.points[::2]
        return point
