"""The curve of a run while it grows: the same points that its records will give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tidings_coordinator.planning import RunPlan
from tidings_coordinator.records.result import goal_of
from tidings_coordinator.records.series import Point, Row, StepGroups, cost_to, point_of

#: beyond that many points every second one is forgotten
_MAX_POINTS = 2000


class GrowingCurve:
    """Takes the series row by row, as it is written; see ``records.series.curve``."""

    def __init__(self, run: RunPlan) -> None:
        self._nodes = len(run.nodes)
        self._byzantine = set(run.byzantine)
        self._aligned = run.experiment.protocol.synchronous and not run.evaluated_by_time
        self._groups = StepGroups(self._nodes)
        self._rows = 0
        #: the latest row of each node, where they do not go in step
        self._latest: dict[int, dict[str, Any]] = {}
        self.goal = goal_of(run)
        self.points: list[Point] = []
        self.first: Point | None = None
        self.last: Point | None = None
        #: bytes, seconds and rounds to the goal, once it has been met
        self.cost: dict[str, float] | None = None

    def add(self, row: dict[str, Any]) -> list[Point]:
        """Take a row; the points that it completes."""
        if self._aligned:
            return [self._complete(group) for group in self._groups.add(row)]
        self._rows += 1
        self._latest[row["node"]] = row
        if len(self._latest) < self._nodes or self._rows % self._nodes:
            return []
        return [self._complete([row for _, row in sorted(self._latest.items())])]

    def lost(self, node: int) -> list[Point]:
        """A node has died; the points that are complete without it."""
        if self._aligned:
            return [self._complete(group) for group in self._groups.lost(node)]
        if node in self._latest:
            self._latest[node] = self._latest[node] | {"gone": True}
        return []

    def _complete(self, group: Sequence[Row]) -> Point:
        point = point_of(group, self._byzantine)
        self.first = self.first or point
        self.last = point
        if self.cost is None and self.goal is not None:
            self.cost = cost_to(self.goal, [point])
        self.points.append(point)
        if len(self.points) > _MAX_POINTS:
            self.points = self.points[::2]
        return point
