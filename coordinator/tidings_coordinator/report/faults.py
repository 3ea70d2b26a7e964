"""Faults and checks in a run's page: what held when, what was asked, what was measured."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tidings_coordinator.records.reading import Row, Run
from tidings_coordinator.records.windows import INSTANT, Window, windows
from tidings_coordinator.report import costs, palette, wording
from tidings_coordinator.report.figures import Shade
from tidings_coordinator.report.render import Table

#: rows of the table, shades of a figure, names of targets in a cell
_MAX_ROWS, _MAX_SHADES, _MAX_TARGETS = 60, 200, 6


def colors(run: Run) -> dict[str, int]:
    """A series number for each fault event, in the order of their ids; 0 is the curve's own."""
    events = sorted({str(row["event"]) for row in run.faults})
    return {event: 1 + number % (palette.SERIES - 1) for number, event in enumerate(events)}


def shades(run: Run, cost: costs.Cost) -> list[Shade]:
    """Where along a cost each fault held; one that was not healed, until the end of the run."""
    if not run.points:
        return []
    series, end_s = colors(run), run.points[-1].time_s
    times = [point.time_s for point in run.points]
    along = costs.along(run.points, cost)
    found: list[Shade] = []
    for window in windows(run.faults):
        if window.start_s is None or window.start_s > end_s:
            continue
        until_s = window.start_s if window.fault in INSTANT else window.end_s
        span = [window.start_s, min(end_s, end_s if until_s is None else until_s)]
        low, high = span if cost == "seconds" else np.interp(span, times, along)
        found.append(Shade(float(low), float(high), series[window.event]))
    return found[:_MAX_SHADES]


def fault_table(run: Run) -> Table | None:
    """Every occurrence of every fault: asked and achieved."""
    held = windows(run.faults)
    rows = [_row(window) for window in held[:_MAX_ROWS]]
    if hidden := len(held) - len(rows):
        rows.append(["…", "", f"{hidden} more in faults.jsonl", "", "", "", ""])
    head = ["event", "fault", "on", "asked for", "held from", "until", "effect"]
    return Table(head, rows, left=7) if rows else None


def _row(window: Window) -> list[str]:
    starts = sorted(window.active.values())
    start = wording.NOTHING
    if starts:
        start = _second(starts[0])
        start += f" to {_second(starts[-1])}" if starts[-1] - starts[0] >= 1e-3 else ""
    until = _second(window.end_s) if window.end_s is not None else "the end"
    if not starts or window.fault in INSTANT:
        until = wording.NOTHING
    return [
        window.event,
        window.fault,
        _targets(window.targets),
        _asked(window.asked),
        start,
        until,
        _effect(window),
    ]


def _second(time_s: float) -> str:
    return f"{time_s:,.3f} s"


def _targets(targets: Sequence[str]) -> str:
    shown = ", ".join(target.replace("->", " → ") for target in targets[:_MAX_TARGETS])
    more = len(targets) - _MAX_TARGETS
    return f"{shown} and {more} more" if more > 0 else shown


def _asked(asked: Mapping[str, Any] | None) -> str:
    """'12 s', 'round 50', '10.0 MB sent'."""
    words = []
    for key, value in (asked or {}).items():
        match key:
            case "time_s":
                words.append(_second(float(value)))
            case "round":
                words.append(f"round {value}")
            case "bytes":
                words.append(f"{wording.size(value)} sent")
            case _:
                text = value if isinstance(value, str) else json.dumps(value)
                words.append(f"{key} {text}")
    return ", ".join(words) or "at the start"


def _effect(window: Window) -> str:
    """What it did, and where nothing came of it."""
    details = list(window.details.values())
    counted = [detail for detail in details if "affected" in detail]
    words = []
    if counted:
        passed, affected = (sum(d.get(key, 0) for d in counted) for key in ("messages", "affected"))
        words.append(f"{affected:,} of {wording.plural(passed, 'message')}")
    words += dict.fromkeys(str(detail["how"]) for detail in details if "how" in detail)
    reasons: dict[str, list[str]] = {}
    for target, reason in window.failed.items():
        reasons.setdefault(reason, []).append(target)
    words += [f"NOT on {_targets(on)}: {reason}" for reason, on in reasons.items()]
    return "; ".join(words)


def check_table(run: Run) -> Table | None:
    """The checks of ``expect`` with their verdicts, as result.json has them."""
    judged: Sequence[Row] = (run.result or {}).get("expect") or ()
    words = {"pass": "pass", "fail": "NO: failed", "unknown": "unknown"}
    rows = [[c["check"].replace("_", " "), words[c["verdict"]], c["text"]] for c in judged]
    return Table(["check", "verdict", "measured and asked"], rows, left=3) if rows else None
