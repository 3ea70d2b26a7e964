"""Figures of reproductions: plots by the report's own code, put together as one SVG file."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

import numpy as np

from tidings_coordinator.report import costs, palette
from tidings_coordinator.report.figures import Axis, Line, Scale, Target, finite, panel
from tidings_coordinator.reproducing.declaration import Panel, Runs
from tidings_coordinator.reproducing.reading import value

_PANEL_WIDTH, _PANEL_HEIGHT = 300, 196
_GAP, _MARGIN, _TITLE_HEIGHT, _LABEL_HEIGHT = 24, 14, 24, 18
_FONT = "ui-sans-serif, system-ui, sans-serif"


def curves(
    runs: Runs,
    metric: str,
    cost: costs.Cost = "rounds",
    *,
    title: str = "",
    target: float | None = None,
    scale: Scale = "auto",
    series: Sequence[int] | None = None,
) -> Panel:
    """A metric of every run over what it cost; the n-th is drawn as ``series[n]``, or as n."""
    order = tuple(range(len(runs))) if series is None else tuple(series)
    lines = [
        Line(
            finite(costs.along(run.points, cost)),
            finite(value(point, metric) for point in run.points),
            series=number,
        )
        for number, run in zip(order, runs.values(), strict=True)
    ]
    label = costs.rounds_label(all(run.synchronous for run in runs.values()))
    goal = None if target is None else Target(target)
    drawn = panel(lines, cost, title or metric, rounds_label=label, scale=scale, target=goal)
    return Panel(title or metric, drawn or "", tuple(runs), order)


def over(runs: Runs, metric: str, name: str, *along: costs.Cost) -> list[Panel]:
    """A metric, called ``name``, over each of several costs."""
    return [curves(runs, metric, cost, title=f"{name} over {cost}") for cost in along]


def points(
    x: Sequence[float],
    series: dict[str, Sequence[float]],
    axis: str,
    title: str,
    *,
    log: bool = True,
    scale: Scale = "auto",
) -> Panel:
    """Numbers of a sweep over what was swept, a line for each of ``series``."""
    lines = [
        Line(np.asarray(x, np.float64), finite(y), series=number)
        for number, y in enumerate(series.values())
    ]
    drawn = panel(lines, Axis(axis, log), title, scale=scale)
    return Panel(title, drawn or "", tuple(series))


def sheet(panels: Sequence[Panel]) -> str:
    """The plots side by side as an SVG file of its own, for light and for dark screens."""
    legend = max(len(one.labels) if len(one.labels) > 1 else 0 for one in panels)
    width = 2 * _MARGIN + len(panels) * (_PANEL_WIDTH + _GAP) - _GAP
    height = 2 * _MARGIN + _TITLE_HEIGHT + _PANEL_HEIGHT + legend * _LABEL_HEIGHT
    parts = []
    for number, one in enumerate(panels):
        x = _MARGIN + number * (_PANEL_WIDTH + _GAP)
        y = _MARGIN + _TITLE_HEIGHT
        parts.append(_text(x, _MARGIN + 12, one.title, "ink", "bold"))
        place = f'<svg x="{x}" y="{y}" width="{_PANEL_WIDTH}" height="{_PANEL_HEIGHT}"'
        parts.append(_apart(one.svg.replace("<svg", place, 1), f"p{number}-"))
        parts += _legend(one, x, y + _PANEL_HEIGHT)
    style = f"{palette.css()}svg{{font-family:{_FONT}}}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{width}" height="{height}" viewBox="0 0 {width} {height}">\n<style>{style}'
        f'</style>\n<rect width="{width}" height="{height}" fill="var(--paper)"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _legend(one: Panel, x: int, y: int) -> list[str]:
    """A line for each series, unless there is but one."""
    parts: list[str] = []
    order = one.series or range(len(one.labels))
    for place, (number, label) in enumerate(zip(order, one.labels, strict=True)):
        if len(one.labels) < 2:
            break
        middle = y + _LABEL_HEIGHT * place + 9
        stroke = f'stroke="var(--{palette.series_name(number)})" stroke-width="2.5"'
        dash = ' stroke-dasharray="4 2"' if number >= palette.SERIES else ""
        parts.append(f'<path d="M{x + 46} {middle}h18" {stroke}{dash}/>')
        parts.append(_text(x + 72, middle + 4, label, "muted", "normal"))
    return parts


def _text(x: int, y: int, text: str, color: str, weight: str) -> str:
    font = f'font-size="12" font-weight="{weight}"'
    return f'<text x="{x}" y="{y}" {font} fill="var(--{color})">{html.escape(text)}</text>'


def _apart(svg: str, prefix: str) -> str:
    """The drawing with ids of its own, so that two may stand in one file."""
    svg = re.sub(r'\bid="([^"]*)"', rf'id="{prefix}\1"', svg)
    svg = re.sub(r"url\(#", f"url(#{prefix}", svg)
    return re.sub(r'href="#', f'href="#{prefix}', svg)
