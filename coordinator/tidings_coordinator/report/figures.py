"""Small figures of a metric against what it cost, as SVG for inlining."""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from tidings.errors import MissingExtra
from tidings_coordinator.report import palette, wording
from tidings_coordinator.report.costs import Cost

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]
#: of the vertical axis; "auto": logarithmic for positive values that span a factor of five
Scale = Literal["auto", "log", "linear", "percent"]

_WIDTH, _HEIGHT = 300, 196
#: the plot inside of the figure: left, bottom, width, height
_BOX = (0.152, 0.19, 0.816, 0.755)
_RC: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 10.5,
    "axes.unicode_minus": True,
    "axes.edgecolor": palette.RULE,
    "axes.labelcolor": palette.MUTED,
    "xtick.color": palette.MUTED,
    "ytick.color": palette.MUTED,
    "path.simplify": True,
}
#: a logarithmic axis for values that span this factor or more
_LOG_SPAN = 5.0
#: of several lines, what is that many times above where the highest begins is not shown
_OUT_OF_SIGHT = 10.0
#: what is left free above and below the lines
_ROOM = 0.06
_BYTES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "bytes"))
_SECONDS = ((3600.0, "hours"), (1.0, "seconds"), (1e-3, "milliseconds"))


@dataclass(frozen=True)
class Line:
    """A curve, with a band around it where ``low`` and ``high`` are given."""

    x: Array
    y: Array
    low: Array | None = None
    high: Array | None = None
    series: int = 0


@dataclass(frozen=True)
class Shade:
    """A stretch of x over which something held; a line where it has no length."""

    start: float
    end: float
    series: int


@dataclass(frozen=True)
class Axis:
    """A horizontal axis that is no cost."""

    label: str
    log: bool = False


@dataclass(frozen=True)
class Target:
    """A value to reach, and the points (x, y, series) where lines reach it."""

    value: float
    met: Sequence[tuple[float, float, int]] = ()
    #: what is written at the first of these points
    text: str = ""


def panel(
    lines: Sequence[Line],
    cost: Cost | Axis,
    title: str,
    *,
    rounds_label: str = "rounds",
    scale: Scale = "auto",
    target: Target | None = None,
    shades: Sequence[Shade] = (),
) -> str | None:
    """The lines over one cost, as an <svg> element; None where there is nothing to draw.

    x is in bytes, seconds or rounds, or in what the axis says. Values that are not finite leave
    gaps, and so do values that are not positive on a logarithmic axis.
    """
    values = np.concatenate([line.y for line in lines]) if lines else np.empty(0)
    if not np.isfinite(values).any():
        return None
    try:
        import matplotlib
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("the report", "report") from None
    name = cost.label if isinstance(cost, Axis) else cost
    with matplotlib.rc_context(_RC | {"svg.hashsalt": f"{title} {name}"}):
        figure = Figure(figsize=(_WIDTH / 72, _HEIGHT / 72), dpi=72)
        FigureCanvasSVG(figure)
        axes = figure.add_axes(_BOX)
        factor, unit = _unit(lines, cost)
        _bounds(axes, lines, factor, scale, target)
        if isinstance(cost, Axis) and cost.log:
            _logarithmic(axes, lines)
        _frame(axes, rounds_label if cost == "rounds" else unit, scale == "percent")
        for shade in shades:
            _draw_shade(axes, shade, factor)
        if target is not None:
            _draw_target(axes, target, factor)
        for line in reversed(lines):
            _draw_line(axes, line, factor)
        drawn = io.StringIO()
        no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(drawn, format="svg", metadata=no_metadata, transparent=True)
    return _inline(drawn.getvalue(), f"{title} over {name}")


def _unit(lines: Sequence[Line], cost: Cost | Axis) -> tuple[float, str]:
    """What to divide x by, and the axis label."""
    if isinstance(cost, Axis):
        return 1.0, cost.label
    largest = max((float(line.x.max()) for line in lines if len(line.x)), default=0.0)
    if cost == "bytes":
        factor, unit = next((u for u in _BYTES if largest >= u[0]), _BYTES[-1])
        return factor, f"{unit} sent, all nodes"
    if cost == "seconds":
        return next((u for u in _SECONDS if largest >= 2 * u[0]), _SECONDS[-1])
    return 1.0, cost


def _bounds(
    axes: Axes, lines: Sequence[Line], factor: float, scale: Scale, target: Target | None
) -> None:
    x = np.concatenate([line.x for line in lines]) / factor
    end = float(x.max()) or 1.0
    axes.set_xlim(-0.015 * end, 1.03 * end)
    y = np.concatenate([line.y for line in lines])
    y = y[np.isfinite(y)]
    bands = [band for line in lines for band in (line.low, line.high) if band is not None]
    spread = np.concatenate([y, *bands])
    spread = spread[np.isfinite(spread)]
    goal = [] if target is None else [target.value]
    low, high = min([float(spread.min()), *goal]), max([float(spread.max()), *goal])
    even = scale in ("linear", "percent")
    if len(lines) > 1 and not even:
        # one setting that diverges must not hide the others
        starts = [line.y[np.isfinite(line.y) & (line.y != 0)][:1] for line in lines]
        high = min(high, max([_OUT_OF_SIGHT * abs(float(y[0])) for y in starts if len(y)]))
    positive = np.array([*y[y > 0], *(value for value in goal if value > 0)])
    span = 1.0 if scale == "log" else _LOG_SPAN
    if not even and len(positive) > 1 and positive.max() >= span * positive.min():
        axes.set_yscale("log", nonpositive="mask")
        low = max(float(positive.min()) / 3, low) if low > 0 else float(positive.min()) / 1.5
        stretch = (high / low) ** _ROOM if high > low else 1.5
        axes.set_ylim(low / stretch, high * stretch)
        return
    pad = _ROOM * (high - low) or 0.05 * abs(high) or 0.05
    axes.set_ylim(low - pad, high + pad)


def _logarithmic(axes: Axes, lines: Sequence[Line]) -> None:
    """A logarithmic x, with the points of the lines (few, of a sweep) marked."""
    x = np.concatenate([line.x for line in lines])
    stretch = (float(x.max()) / float(x.min())) ** _ROOM
    axes.set_xscale("log")
    axes.set_xlim(float(x.min()) / stretch, float(x.max()) * stretch)
    for line in lines:
        axes.plot(line.x, line.y, "o", color=palette.series(line.series), markersize=4.5)


def _frame(axes: Axes, label: str, as_percent: bool) -> None:
    from matplotlib import ticker

    axes.set_xlabel(label, labelpad=4)
    if axes.get_xscale() == "log":
        _log_ticks(axes.xaxis, axes.get_xlim())
    else:
        axes.xaxis.set_major_locator(ticker.MaxNLocator(5, integer=label.startswith("rounds")))
        axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda x, _: _tick(x)))
    if axes.get_yscale() == "log":
        _log_ticks(axes.yaxis, axes.get_ylim())
    else:
        axes.yaxis.set_major_locator(ticker.MaxNLocator(5))
        if as_percent:
            axes.set_yticks([tick for tick in axes.get_yticks() if 0 <= tick <= 1])
        write: Callable[[float], str] = (lambda y: f"{100 * y:.4g}%") if as_percent else _tick
        axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda y, _: write(y)))
    axes.grid(axis="y", color=palette.RULE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, pad=5, labelsize=10)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(palette.MUTED)
    axes.spines["bottom"].set_linewidth(0.8)


def _log_ticks(axis: Any, limits: tuple[float, float]) -> None:
    from matplotlib import ticker

    subs = (1.0, 2.0, 5.0) if limits[1] / limits[0] < 200 else (1.0,)
    axis.set_major_locator(ticker.LogLocator(10, subs=subs, numticks=6))
    axis.set_minor_locator(ticker.NullLocator())
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: _log_tick(value)))


def _tick(value: float) -> str:
    return "0" if abs(value) < 1e-12 else wording.number(value)


def _log_tick(value: float) -> str:
    exponent = math.log10(value)
    if -3.5 < exponent < 4.5 or abs(exponent - round(exponent)) > 1e-6:
        return wording.number(value, 1)
    return wording.power_of_ten(round(exponent))


def _draw_line(axes: Axes, line: Line, factor: float) -> None:
    color = palette.series(line.series)
    dash: Any = "-" if line.series < palette.SERIES else (0, (4, 2))
    x = line.x / factor
    if line.low is not None and line.high is not None:
        axes.fill_between(x, line.low, line.high, color=color, alpha=0.18, linewidth=0)
    axes.plot(x, line.y, color=color, linewidth=1.7, linestyle=dash, solid_capstyle="round")
    finite = np.isfinite(line.y)
    if finite.sum() == 1:
        axes.plot(x[finite], line.y[finite], "o", color=color, markersize=4.5)


def _draw_shade(axes: Axes, shade: Shade, factor: float) -> None:
    color, low, high = palette.series(shade.series), shade.start / factor, shade.end / factor
    if high > low:
        axes.axvspan(low, high, color=color, alpha=0.16, linewidth=0, zorder=0.4)
    # its edge, so that what is short can be seen
    axes.axvline(low, color=color, alpha=0.7, linewidth=0.8, zorder=0.5)


def _draw_target(axes: Axes, target: Target, factor: float) -> None:
    low, _ = axes.get_ylim()
    axes.axhline(target.value, color=palette.MUTED, linewidth=0.9, linestyle=(0, (3, 2.5)))
    for x, y, series in target.met:
        color = palette.series(series)
        axes.plot(
            [x / factor] * 2, [low, y], color=color, linewidth=0.9, linestyle=(0, (1, 2)), zorder=1
        )
        axes.plot([x / factor], [y], "o", color=color, markersize=5, zorder=5)
    if target.text and target.met:
        x = target.met[0][0] / factor
        left = x > sum(axes.get_xlim()) * 0.6
        axes.annotate(
            target.text,
            (x, 0.04),
            (-4 if left else 4, 0),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="right" if left else "left",
            fontsize=9.5,
            color=palette.INK,
        )


def _inline(svg: str, label: str) -> str:
    """The drawing without what only a file of its own needs, and without fixed size and colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r'<path d="[^"]*" style="fill: none"/>', "", svg)
    svg = re.sub(r" font-family:[^;]*;", "", svg)
    svg = re.sub(r' transform="rotate\(-0 [^"]*"', "", svg)
    svg = re.sub(r'"[^"]*"', lambda found: re.sub(r"(\d\.\d\d)\d+", r"\1", found[0]), svg)
    used = set(re.findall(r'(?:url\(|href=")#([\w.-]+)', svg))
    svg = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", svg)
    svg = re.sub(r"\s*\n\s*", " ", svg)
    svg = re.sub(r"<g>\s*</g>|(?<=>) (?=<)", "", svg)
    head = (
        f'<svg class="panel" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{html.escape(label)}">'
    )
    return palette.by_name(head + svg[svg.index(">") + 1 :])


def finite(values: Iterable[float]) -> Array:
    """As an array; infinities become NaN, which leaves a gap."""
    array = np.array(list(values), dtype=np.float64)
    array[~np.isfinite(array)] = np.nan
    return array
