"""The series read back: one curve per run, with mean and spread over the honest nodes."""

from __future__ import annotations

import base64
import bisect
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tidings.runtime.evaluation import consensus_distance
from tidings_coordinator.records.directory import read_json, read_lines
from tidings_coordinator.records.standing import standing
from tidings_coordinator.records.windows import DOWN, spans

Row = dict[str, Any]

#: rounds that are known of some nodes only
_MAX_OPEN = 256


@dataclass(frozen=True)
class Spread:
    """A metric over nodes."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Point:
    """The state of a run at one moment."""

    #: rounds (or local steps, averaged) that were complete
    round: float
    time_s: float
    #: bytes that all nodes have sent by then, by kind, with their total
    bytes: dict[str, int]
    messages: int
    metrics: dict[str, Spread]
    consensus_distance: float


def curve(path: Path) -> list[Point]:
    """The run's points in order of time; of a broken-off run those that are complete."""
    byzantine = set((read_json(path, "graph.json") or {}).get("byzantine", ()))
    return [point_of(group, byzantine) for group in groups(path)]


def groups(path: Path) -> list[list[Row]]:
    """The rows of all nodes that make each of the run's points together, in node order."""
    graph = read_json(path, "graph.json") or {}
    rows = list(standing(path, "series"))
    nodes = {row["node"] for row in rows}
    down = _down(path)
    # nodes that evaluate by time do so in different rounds even if they go in step
    aligned = graph.get("synchronous") and not graph.get("evaluated_by_time")
    return _by_round(rows, len(nodes), down) if aligned else _by_time(rows, nodes, down)


def _down(path: Path) -> dict[int, list[tuple[float, float]]]:
    """When nodes were dead, in seconds: by faults, and by what the coordinator saw."""
    found = {
        node: [(start_s, math.inf if end_s is None else end_s) for start_s, end_s in stretches]
        for node, stretches in spans(read_lines(path, "faults"), DOWN).items()
    }
    for event in read_lines(path, "events"):
        node = -1 if event.get("node") is None else int(event["node"])
        if event["event"] == "died" and node not in found:
            found[node] = [(event["time_s"], math.inf)]
        elif event["event"] == "returned" and node in found and found[node][-1][1] == math.inf:
            found[node][-1] = (found[node][-1][0], event["time_s"])
    return found


class StepGroups:
    """Rows of nodes that go in step, put together by round as they come.

    A round is complete when every node has a row for it. A node that has ended is as it was in its
    final row, if that is of an earlier round; rounds that a node never reached are left out. A node
    that was :meth:`lost` is not waited for: where it is missing, its last row before stands in for
    what it had sent, marked as "gone". At most ``most_open`` rounds are kept incomplete.
    """

    def __init__(self, nodes: int, most_open: int | None = _MAX_OPEN) -> None:
        self._nodes = nodes
        self._most_open = most_open
        self._open: dict[int, dict[int, Row]] = {}
        self._final: dict[int, Row] = {}
        self._lost: set[int] = set()
        #: rows of every node, the latest last, for those that are lost later
        self._rows: dict[int, list[Row]] = {}

    def add(self, row: Row) -> list[list[Row]]:
        """Take a row; the rounds that it completes, in order, each with its rows in node order."""
        self._open.setdefault(row["round"], {})[row["node"]] = row
        known = self._rows.setdefault(row["node"], [])
        if self._most_open is not None:
            # only the latest, so that a run of any length takes no room
            known.clear()
        known.append(row)
        if row["final"]:
            self._final[row["node"]] = row
        complete = self._complete(sorted(self._open) if row["final"] else [row["round"]])
        while self._most_open is not None and len(self._open) > self._most_open:
            # rounds that a dead node will never complete
            del self._open[min(self._open)]
        return complete

    def lost(self, node: int) -> list[list[Row]]:
        """The node has died; the rounds that are complete without it."""
        self._lost.add(node)
        return self._complete(sorted(self._open))

    def _complete(self, candidates: Iterable[int]) -> list[list[Row]]:
        found = ((round_, self._whole(round_)) for round_ in candidates)
        complete = {round_: group for round_, group in found if len(group) == self._nodes}
        for round_ in complete:
            del self._open[round_]
        return [_in_order(group) for group in complete.values()]

    def _whole(self, round_: int) -> dict[int, Row]:
        lost = {}
        for node in self._lost:
            known = self._rows.get(node, [])
            before = bisect.bisect_left(known, round_, key=lambda row: row["round"])
            if before:
                lost[node] = known[before - 1] | _GONE
        ended = {node: row for node, row in self._final.items() if row["round"] < round_}
        return lost | ended | self._open[round_]


#: what marks the row of a node that is not there any more
_GONE = {"gone": True}


def _by_round(rows: Iterable[Row], nodes: int, down: Mapping[int, Any]) -> list[list[Row]]:
    """The complete rounds, in order."""
    groups = StepGroups(nodes, most_open=None)
    complete = [group for row in rows for group in groups.add(row)]
    complete += [group for node in down for group in groups.lost(node)]
    return sorted(complete, key=lambda group: max(_there(group)))


def _there(group: Sequence[Row]) -> list[int]:
    return [row["round"] for row in group if not row.get("gone")] or [0]


def _by_time(
    rows: Sequence[Row], nodes: set[int], down: Mapping[int, Sequence[tuple[float, float]]]
) -> list[list[Row]]:
    """Each node's latest row, as often as all nodes together have evaluated once more."""

    def now(row: Row, time_s: float) -> Row:
        gone = any(start_s <= time_s < end_s for start_s, end_s in down.get(row["node"], ()))
        return {**row, **_GONE} if gone else row

    latest: dict[int, Row] = {}
    groups = []
    ordered = sorted(rows, key=lambda row: (row["time_s"], row["node"]))
    for number, row in enumerate(ordered, start=1):
        latest[row["node"]] = row
        if set(latest) == nodes and (number % len(nodes) == 0 or number == len(ordered)):
            time_s = row["time_s"]
            groups.append(_in_order({node: now(each, time_s) for node, each in latest.items()}))
    return groups


def _in_order(by_node: Mapping[int, Row]) -> list[Row]:
    """In node order, so that means do not depend on the order of arrival."""
    return [row for _, row in sorted(by_node.items())]


def point_of(rows: Sequence[Row], byzantine: set[int]) -> Point:
    """The point that rows of all nodes, in node order, make together.

    Of nodes that are gone only what they had sent counts.
    """
    there = [row for row in rows if not row.get("gone")] or list(rows)
    honest = [row for row in there if row["node"] not in byzantine] or there
    names = sorted(set[str]().union(*(row["metrics"] for row in honest)))
    sketches = np.stack([sketch_of(row) for row in honest])
    return Point(
        round=float(np.mean([row["round"] for row in there])),
        time_s=max(row["time_s"] for row in there),
        bytes={kind: sum(row["bytes"][kind] for row in rows) for kind in rows[0]["bytes"]},
        messages=sum(row["messages"] for row in rows),
        metrics={name: _spread(row["metrics"].get(name) for row in honest) for name in names},
        consensus_distance=consensus_distance(sketches),
    )


def _spread(values: Iterable[float | None]) -> Spread:
    known = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    return Spread(float(known.mean()), float(known.min()), float(known.max()))


def sketch_of(row: Row) -> np.ndarray:
    """The sketch of a row's model: (128,) float32."""
    return np.frombuffer(base64.b64decode(row["sketch"]), dtype="<f4")


@dataclass(frozen=True)
class Goal:
    """A target: accuracy to reach, or loss to come down to."""

    metric: str
    value: float

    def met(self, point: Point) -> bool:
        """Whether the mean over honest nodes has reached it."""
        spread = point.metrics.get(self.metric)
        if spread is None:
            return False
        if self.metric == "accuracy":
            return spread.mean >= self.value
        return spread.mean <= self.value


def cost_to(goal: Goal, points: Iterable[Point]) -> dict[str, float] | None:
    """Bytes, time and rounds at the first point that meets the goal; None where none does."""
    for point in points:
        if goal.met(point):
            return {
                "bytes": point.bytes["total"],
                "time_s": point.time_s,
                "rounds": point.round,
            }
    return None
