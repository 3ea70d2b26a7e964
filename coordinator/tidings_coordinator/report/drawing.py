"""The network drawn: nodes where the topology puts them, links by the bytes that they carried."""

from __future__ import annotations

import html
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidings_coordinator.report import wording

Array = NDArray[np.float64]
Arc = tuple[int, int]

_SIZE = 1000.0
_MARGIN = 45.0
#: how far a line that would touch a node bends, as a share of its length
_BOW = 0.1
#: steps of width and darkness from the least to the most loaded link
_LEVELS = 6


@dataclass(frozen=True)
class Drawing:
    """An SVG of the network and what is needed to read it."""

    svg: str
    #: pixels that it deserves on a wide page
    width: int
    #: (svg of a sample line, bytes) from the least to the most loaded step
    scale: list[tuple[str, str]]
    roles: list[str]


def draw(
    graph: Mapping[str, Any], loads: Mapping[Arc, int], sent: Mapping[int, Mapping[str, int]]
) -> Drawing | None:
    """The graph of ``graph.json``; None where it says too little. ``loads``: bytes by link.

    Each half of a line shows what the node at that end sent over it; an arrow head, that only one
    end may send. Nodes have their number, and what they sent as a tooltip.
    """
    layout = np.array(graph.get("layout") or [], dtype=np.float64)
    if layout.ndim != 2 or len(layout) == 0:
        return None
    place = _fit(layout)
    arcs = {(int(a), int(b)) for a, b in graph.get("arcs", ())}
    pairs = sorted({(min(arc), max(arc)) for arc in arcs})
    radius = _radius(place)
    thick = 0.3 * radius / max(1.0, len(pairs) / len(place)) ** 0.75
    widths = [max(0.6, thick * step / _LEVELS) for step in range(_LEVELS + 1)]
    # where nothing was carried, or nothing is known about it, a link is there all the same
    widths[0] = max(1.2, widths[2])
    lines = _Lines(place, radius, max(loads.values(), default=0), loads, arcs)
    for a, b in pairs:
        lines.add(a, b, bend=len(pairs) <= 4 * len(place))
    parts = [lines.svg(level, widths[level]) for level in sorted(lines.paths)]
    roles = [str(role) for role in graph.get("roles", ())] or ["peer"] * len(place)
    byzantine = {int(node) for node in graph.get("byzantine", ())}
    nodes = [
        _node(node, place[node], radius, roles[node], node in byzantine, sent.get(node))
        for node in range(len(place))
    ]
    parts += [f'<g stroke-width="{min(2.0, 0.1 * radius):.1f}">', *nodes, "</g>"]
    label = f"{len(place)} nodes, {len(arcs)} directed links"
    svg = (
        f'<svg class="network" viewBox="{lines.view()}" role="img" '
        f'aria-label="{label}">' + "".join(parts) + "</svg>"
    )
    width = 440 if len(place) <= 16 else 560 if len(place) <= 48 else 700
    return Drawing(svg, width, _scale(lines, widths), sorted(set(roles)))


def _fit(layout: Array) -> Array:
    """Onto the canvas, y downwards."""
    low, high = layout.min(axis=0), layout.max(axis=0)
    scale = _SIZE / max(float((high - low).max()), 1e-9)
    return np.column_stack([layout[:, 0] - low[0], high[1] - layout[:, 1]]) * scale


def _radius(place: Array) -> float:
    """As large as leaves the nodes apart, most of them at least."""
    if len(place) == 1:
        return 30.0
    distance = np.hypot(*(place[:, None] - place).T)
    np.fill_diagonal(distance, np.inf)
    return float(np.clip(0.38 * np.percentile(distance.min(axis=0), 10), 9, 30))


class _Lines:
    """Collects links by load, so that a dense graph stays a small drawing."""

    def __init__(
        self, place: Array, radius: float, most: int, loads: Mapping[Arc, int], arcs: set[Arc]
    ) -> None:
        self._place = place
        self._radius = radius
        self.most = most
        self._loads = loads
        self._arcs = arcs
        #: level -> path data
        self.paths: dict[int, list[str]] = defaultdict(list)
        self._heads: dict[int, list[str]] = defaultdict(list)
        #: points that must be on the canvas
        self._seen = list(place)

    def view(self) -> str:
        """The canvas: a viewBox around all nodes and lines."""
        low = np.min(self._seen, axis=0) - _MARGIN
        size = np.max(self._seen, axis=0) + _MARGIN - low
        return f"{_xy(low)} {_xy(size)}"

    def level(self, load: int) -> int:
        """0 for nothing, then the steps up to the most loaded link."""
        return math.ceil(_LEVELS * load / self.most) if self.most else 0

    def add(self, a: int, b: int, bend: bool) -> None:
        """The line between two nodes, with a bow around nodes in between."""
        start, end = self._place[a], self._place[b]
        middle = (start + end) / 2
        if bend and self._blocked(a, b):
            across = np.array([start[1] - end[1], end[0] - start[0]])
            middle = middle + _BOW * across
            self._seen.append(middle)
        for source, target in ((a, b), (b, a)):
            if (source, target) not in self._arcs:
                continue
            level = self.level(self._loads.get((source, target), 0))
            first, last = self._place[source], self._place[target]
            if (target, source) in self._arcs:
                self.paths[level].append(_curve(first, middle, last, half=True))
            else:
                self.paths[level].append(_curve(first, middle, last))
                self._heads[level].append(self._head(_control(first, middle, last), last))

    def _head(self, control: Array, tip: Array) -> str:
        along = (tip - control) / max(float(np.hypot(*(tip - control))), 1e-9)
        across = np.array([-along[1], along[0]])
        tip = tip - along * self._radius * 1.1
        back = tip - along * self._radius * 0.7
        side = across * self._radius * 0.3
        return f"M{_xy(tip)}L{_xy(back + side)} {_xy(back - side)}Z"

    def _blocked(self, a: int, b: int) -> bool:
        """Whether a straight line would touch a third node."""
        start, along = self._place[a], self._place[b] - self._place[a]
        length = max(float(along @ along), 1e-9)
        share = np.clip((self._place - start) @ along / length, 0, 1)
        distance = np.hypot(*(self._place - start - share[:, None] * along).T)
        distance[[a, b]] = np.inf
        return bool(distance.min() < 1.3 * self._radius)

    def svg(self, level: int, width: float) -> str:
        """All links of one load."""
        style = f'class="load{level}" stroke-width="{width:.1f}"'
        drawn = f'<path {style} d="{"".join(self.paths[level])}"/>'
        if self._heads[level]:
            drawn += f'<path class="head load{level}" d="{"".join(self._heads[level])}"/>'
        return drawn


def _control(first: Array, middle: Array, last: Array) -> Array:
    """Of the quadratic curve through three points."""
    control: Array = 2 * middle - (first + last) / 2
    return control


def _curve(first: Array, middle: Array, last: Array, half: bool = False) -> str:
    """Path data through three points, or from the first to the middle."""
    control = _control(first, middle, last)
    end = middle if half else last
    if np.allclose(middle, (first + last) / 2):
        return f"M{_xy(first)}L{_xy(end)}"
    if half:
        control = (first + control) / 2
    return f"M{_xy(first)}Q{_xy(control)} {_xy(end)}"


def _xy(point: Array) -> str:
    return f"{point[0]:.0f} {point[1]:.0f}"


def _node(
    node: int,
    place: Array,
    radius: float,
    role: str,
    byzantine: bool,
    sent: Mapping[str, int] | None,
) -> str:
    x, y = place
    words = [f"node {node}", role] + ["Byzantine"] * byzantine
    words += [] if sent is None else [f"sent {wording.size(sent['total'])}"]
    if role == "server":
        side = 1.25 * radius
        corner = f'x="{x - side:.1f}" y="{y - side:.1f}"'
        shape = f'<rect {corner} width="{2 * side:.1f}" height="{2 * side:.1f}" rx="4"/>'
    elif byzantine:
        side = 1.35 * radius
        corners = ((0, -side), (side, 0), (0, side), (-side, 0))
        points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)
        shape = f'<polygon points="{points}"/>'
    else:
        shape = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"/>'
    font = radius * (1.05 if node < 100 else 0.85)
    kind = "byzantine" if byzantine else "server" if role == "server" else "honest"
    return (
        f'<g class="{kind}"><title>{html.escape(", ".join(words))}</title>{shape}'
        f'<text x="{x:.1f}" y="{y + 0.36 * font:.1f}" font-size="{font:.1f}">{node}</text></g>'
    )


def _scale(lines: _Lines, widths: Sequence[float]) -> list[tuple[str, str]]:
    """Sample lines for the legend; empty where the links carried the same, or nothing."""
    if len(set(lines.paths)) < 2 or not lines.most:
        return []
    samples = []
    for level in sorted({min(lines.paths), (_LEVELS + 1) // 2, max(lines.paths)}):
        line = f'<path class="load{level}" stroke-width="{widths[level]:.1f}" d="M0 20H90"/>'
        sample = f'<svg class="network sample" viewBox="0 0 90 40">{line}</svg>'
        text = wording.size(lines.most * level / _LEVELS) if level else "nothing"
        samples.append((sample, f"up to {text}" if 0 < level < _LEVELS else text))
    return samples
