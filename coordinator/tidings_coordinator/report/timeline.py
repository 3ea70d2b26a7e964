"""The nodes' timelines drawn: a row a node, time to the right, faults that hold shaded."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tidings_coordinator.records.reading import Run
from tidings_coordinator.records.timeline import STATES, Span, timelines
from tidings_coordinator.report import wording
from tidings_coordinator.report.render import Table

#: rows that are drawn; of more nodes, as many from all over
_MAX_ROWS = 48
_WIDTH, _LEFT, _TOP, _FOOT = 1000.0, 44.0, 4.0, 26.0
#: narrowest stretch that is drawn on its own; what is shorter is put together
_LEAST = 1.0
_TICKS = 8


@dataclass(frozen=True)
class Drawn:
    """An SVG, the states that occur in it, and what is to be said about it."""

    svg: str
    states: list[str]
    notes: list[str]
    #: of each node's time, in percent
    shares: Table


def draw(run: Run) -> Drawn | None:
    """The timelines of a run; None where none were recorded.

    Within a stretch that is of several states each is as high as its share of the time.
    """
    found = timelines(run)
    if not found:
        return None
    step = math.ceil(len(found) / _MAX_ROWS)
    nodes = list(found)[::step]
    end_us = max(spans[-1].to_us for spans in found.values() if spans)
    row = 20.0 if len(nodes) <= 16 else 12.0
    bottom = _TOP + row * len(nodes)
    parts = [_axis(end_us, bottom)]
    seen: set[str] = set()
    for index, node in enumerate(nodes):
        drawn, states = _row(found[node], end_us, _TOP + index * row, 0.78 * row)
        seen |= states
        y = f"{_TOP + (index + 0.62) * row:.1f}"
        parts.append(f'<text class="who" x="{_LEFT - 8:.0f}" y="{y}">{node}</text>{drawn}')
    label = f"what {len(nodes)} nodes did over {end_us / 1e6:.3g} seconds"
    svg = (
        f'<svg class="timeline" viewBox="0 0 {_WIDTH:.0f} {bottom + _FOOT:.0f}" role="img" '
        f'aria-label="{html.escape(label)}">' + "".join(parts) + "</svg>"
    )
    notes = [f"Every {step}th of {len(found)} nodes is drawn."] if step > 1 else []
    shares = Table(["node", *STATES], [[str(node), *_shares(found[node])] for node in nodes])
    return Drawn(svg, [state for state in STATES if state in seen], notes, shares)


def _row(spans: Sequence[Span], end_us: int, top: float, height: float) -> tuple[str, set[str]]:
    """A node's row: a path for each state; and the states that it has."""
    paths: dict[str, list[str]] = {}
    scale = (_WIDTH - _LEFT) / max(1, end_us)
    for span in _coarse(spans, _LEAST / scale):
        x, width = _LEFT + span.from_us * scale, (span.to_us - span.from_us) * scale
        if span.down:
            paths.setdefault("down", []).append(_box(x, top, width, height))
            continue
        computing, sending = span.shares()
        base = top + height
        for state, share in (
            ("computing", computing),
            ("sending", sending),
            ("waiting", max(0.0, 1.0 - computing - sending)),
        ):
            if share > 1e-3:
                base -= share * height
                paths.setdefault(state, []).append(_box(x, base, width, share * height))
    drawn = "".join(f'<path class="{state}" d="{"".join(d)}"/>' for state, d in paths.items())
    return drawn, set(paths)


def _coarse(spans: Iterable[Span], least_us: float) -> list[Span]:
    """Neighbours put together until they are long enough to be seen."""
    found: list[Span] = []
    for span in spans:
        last = found[-1] if found else None
        short = last is not None and last.to_us - last.from_us < least_us
        if last is None or not short or last.down or span.down or last.to_us != span.from_us:
            found.append(span)
            continue
        found[-1] = Span(
            last.from_us,
            span.to_us,
            last.computing_us + span.computing_us,
            last.sending_us + span.sending_us,
        )
    return found


def _box(x: float, y: float, width: float, height: float) -> str:
    return f"M{x:.1f} {y:.1f}h{width:.2f}v{height:.1f}h{-width:.2f}z"


def _axis(end_us: int, bottom: float) -> str:
    """Ticks at round seconds."""
    end_s = max(end_us / 1e6, 1e-6)
    step = 10.0 ** math.floor(math.log10(end_s / _TICKS))
    step *= next(factor for factor in (1, 2, 5, 10) if end_s / (factor * step) <= _TICKS)
    parts = []
    for number in range(math.floor(end_s / step + 1e-9) + 1):
        x = _LEFT + (_WIDTH - _LEFT) * number * step / end_s
        text = "0" if number == 0 else wording.seconds(number * step)
        anchor = ' text-anchor="end"' if x > _WIDTH - 30 else ""
        parts.append(f'<path class="tick" d="M{x:.1f} {_TOP:.0f}V{bottom + 4:.0f}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 19:.0f}"{anchor}>{text}</text>')
    return "".join(parts)


def _shares(spans: Sequence[Span]) -> list[str]:
    total = sum(span.to_us - span.from_us for span in spans) or 1
    down = sum(span.to_us - span.from_us for span in spans if span.down)
    computing = sum(span.computing_us for span in spans)
    sending = sum(span.sending_us for span in spans)
    of_states = (computing, sending, total - computing - sending - down, down)
    return [wording.percent(each / total) for each in of_states]
