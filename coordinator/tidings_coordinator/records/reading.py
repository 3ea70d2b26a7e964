"""A run directory read back, whatever there is of it."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tidings.errors import UserError
from tidings.units import Ratio
from tidings_coordinator.experiment.yaml_loader import YamlError, parse
from tidings_coordinator.records.directory import read_json, read_lines
from tidings_coordinator.records.series import Goal, Point, cost_to, curve
from tidings_coordinator.records.standing import standing

Row = dict[str, Any]

#: what bytes are made of
KINDS = ("payload", "metadata", "header", "control", "heartbeat")
_METRICS = ("accuracy", "loss", "suboptimality", "distance")


def metric_order(name: str) -> tuple[int, str]:
    """A sort key: known metrics first, the most telling one ahead."""
    return (_METRICS.index(name) if name in _METRICS else len(_METRICS), name)


@dataclass(frozen=True)
class Run:
    """One run. What is missing is empty, or None."""

    path: Path
    #: resolved.yaml, as data and as text
    resolved: Row
    resolved_text: str
    points: list[Point]
    #: every node's latest row of the series
    latest: dict[int, Row]
    graph: Row = field(default_factory=dict)
    environment: Row = field(default_factory=dict)
    result: Row | None = None
    fidelity: Row | None = None
    events: list[Row] = field(default_factory=list)
    links: list[Row] = field(default_factory=list)
    nodes: list[Row] = field(default_factory=list)
    faults: list[Row] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The experiment's name; the directory's where that is not known."""
        return str(self.resolved.get("name") or (self.result or {}).get("name") or self.path.name)

    @property
    def last(self) -> Point | None:
        """The last moment of which something is known."""
        return self.points[-1] if self.points else None

    @property
    def synchronous(self) -> bool:
        """Whether the nodes go in rounds."""
        return bool(self.graph.get("synchronous"))

    @property
    def simulated(self) -> bool:
        """Whether time was virtual."""
        return bool(self.at("launcher", "kind") == "simulator")

    @property
    def honest(self) -> int:
        """The number of nodes that metrics are averaged over."""
        return len(set(self.latest) - set(self.byzantine)) or len(self.latest)

    @property
    def byzantine(self) -> list[int]:
        """The attackers."""
        return list(self.graph.get("byzantine") or ())

    @property
    def goal(self) -> Goal | None:
        """The target; an accuracy to stop at is one too."""
        found = [
            (metric, self.at(section, metric))
            for section, metric in (
                ("target", "accuracy"),
                ("target", "loss"),
                ("stop", "accuracy"),
            )
        ]
        for metric, value in found:
            if value is None:
                continue
            try:
                return Goal(metric, float(Ratio.parse(value) if metric == "accuracy" else value))
            except (TypeError, ValueError):
                continue
        return None

    @property
    def cost(self) -> dict[str, float] | None:
        """What it took to reach the goal; None where it was not reached, or there is none."""
        return cost_to(self.goal, self.points) if self.goal else None

    def best(self, metric: str) -> float | None:
        """The best mean over honest nodes; None where there never was a finite one."""
        means = [point.metrics[metric].mean for point in self.points if metric in point.metrics]
        known = [mean for mean in means if math.isfinite(mean)]
        return (max if metric == "accuracy" else min)(known, default=None)

    @property
    def date(self) -> datetime.datetime:
        """When it began: the first event, or when the directory was made."""
        for event in self.events:
            try:
                return datetime.datetime.fromisoformat(event["utc"]).astimezone(datetime.UTC)
            except (KeyError, TypeError, ValueError):
                continue
        made = [
            file.stat().st_mtime
            for file in (self.path / "environment.json", self.path / "experiment.yaml", self.path)
            if file.exists()
        ]
        return datetime.datetime.fromtimestamp(made[0], datetime.UTC)

    def at(self, *keys: str) -> Any:
        """A value of the resolved experiment; None where the keys lead nowhere."""
        found: Any = self.resolved
        for key in keys:
            found = found.get(key) if isinstance(found, Mapping) else None
        return found

    @property
    def closed(self) -> bool:
        """Whether every node has left its closing record."""
        return bool(self.links) and len(self.nodes) >= self.node_count

    def sent(self) -> dict[int, dict[str, int]]:
        """Bytes by kind that each node sent: at the end, or as far as it was written down."""
        if not self.closed:
            return {
                node: {kind: row["bytes"].get(kind, 0) for kind in ("total", *KINDS)}
                for node, row in sorted(self.latest.items())
            }
        total = {node: dict.fromkeys(("total", *KINDS), 0) for node in range(self.node_count)}
        for link in self.links:
            of_node = total.setdefault(link["source"], dict.fromkeys(("total", *KINDS), 0))
            for kind in of_node:
                of_node[kind] += link["bytes"].get(kind, 0)
        return total

    @property
    def messages(self) -> int:
        """Messages that were sent, like :meth:`sent`."""
        return sum(row["messages"] for row in (self.links if self.closed else self.latest.values()))

    @property
    def node_count(self) -> int:
        """The number of nodes that were asked for."""
        return int(self.graph.get("nodes") or self.at("nodes") or len(self.latest))


def is_run(path: Path) -> bool:
    """Whether somebody began a run there."""
    return any((path / name).is_file() for name in ("resolved.yaml", "experiment.yaml"))


def read(path: Path) -> Run:
    """Read a run directory, complete or not; UserError where ``path`` is none."""
    if not is_run(path):
        raise UserError(f"{path} is not a run directory: it has no experiment.yaml")
    resolved = path / "resolved.yaml"
    text = resolved.read_text(encoding="utf-8", errors="replace") if resolved.is_file() else ""
    try:
        found = parse(text).value
    except YamlError:
        found = None
    return Run(
        path=path,
        resolved=found if isinstance(found, dict) else {},
        resolved_text=text,
        points=curve(path),
        latest={row["node"]: row for row in standing(path, "series")},
        graph=read_json(path, "graph.json") or {},
        environment=read_json(path, "environment.json") or {},
        result=read_json(path, "result.json"),
        fidelity=read_json(path, "fidelity.json"),
        events=list(read_lines(path, "events")),
        links=list(standing(path, "links")),
        nodes=list(standing(path, "nodes")),
        faults=list(standing(path, "faults")),
    )
