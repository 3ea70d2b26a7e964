"""Whether a metric comes back after a fault."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

from tidings.units import Duration, Ratio
from tidings_coordinator.checks.base import Check, Judged, checks, unknown
from tidings_coordinator.experiment.section import Words
from tidings_coordinator.records.reading import Run
from tidings_coordinator.records.series import Point
from tidings_coordinator.records.windows import Window, windows
from tidings_coordinator.report import wording


def _read_span(value: object) -> object:
    if isinstance(value, dict):
        if set(value) == {"rounds"} and type(value["rounds"]) is int and value["rounds"] >= 0:
            return dict(value)
    elif isinstance(value, str):
        return Duration.parse(value)
    raise ValueError(f"write a time such as '10s' or {{rounds: 20}}, got {value!r}")


#: a time, or {rounds: k}
Span = Annotated[
    Any,
    Words("duration or {rounds: whole number}"),
    BeforeValidator(_read_span),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "examples": ["10s"]},
                {
                    "type": "object",
                    "properties": {"rounds": {"type": "integer", "minimum": 0}},
                    "required": ["rounds"],
                    "additionalProperties": False,
                },
            ]
        }
    ),
]


@checks.register("recovered")
@dataclass(frozen=True, kw_only=True)
class Recovered(Check):
    """A metric comes back after a fault: ``{check: recovered, after: split, within: 10s}``.

    Back to its level before: that of the last point before the fault began anywhere. In time: at
    some point between the moment at which the fault was healed everywhere and `within` after it.
    Accuracy is to be as high again, every other metric as low. Where the event happens several
    times, each time counts. Evidence: series.jsonl, faults.jsonl. Unknown where the fault never
    held or was not healed, where nothing was evaluated before it, and where the run ended, not yet
    recovered, before the time was up.
    """

    #: the id of the fault event
    after: str
    #: how long it may take once the fault is healed: a time, or {rounds: k}
    within: Span
    #: mean over the honest nodes
    metric: str = "accuracy"
    #: how far below (accuracy) or above its former level still counts, as a share of that level
    slack: Ratio = Ratio(0)

    @property
    def events(self) -> dict[str, str]:
        """The one that it is about."""
        return {"after": self.after}

    def judge(self, run: Run) -> Judged:
        """Whether it came back each time."""
        within = self.within if isinstance(self.within, dict) else {"seconds": float(self.within)}
        asked = {"within": within, "slack": float(self.slack)}
        held = [w for w in windows(run.faults) if w.event == self.after and w.start_s is not None]
        if not held:
            return unknown(f"'{self.after}' never held", asked)
        judged = [self._once(run, window, asked) for window in held]
        order = {"fail": 0, "unknown": 1, "pass": 2}
        worst = min(judged, key=lambda each: order[each.verdict])
        measured = [each.measured for each in judged]
        times = f" (the worst of {len(judged)} times)" if len(judged) > 1 else ""
        return Judged(worst.verdict, measured, asked, worst.text + times)

    def _once(self, run: Run, window: Window, asked: dict[str, Any]) -> Judged:
        points = [point for point in run.points if self.metric in point.metrics]
        start_s, end_s = window.start_s or 0.0, window.end_s
        before = [point for point in points if point.time_s <= start_s]
        if not before:
            return unknown(f"no {self.metric} was recorded before '{window.event}'", asked)
        level = before[-1].metrics[self.metric].mean
        needed = level * (1 - self.slack if self.metric == "accuracy" else 1 + self.slack)
        if end_s is None:
            return unknown(f"'{window.event}' was not healed", asked, {"before": level})
        deadline, along = self._deadline(run, window, end_s)
        after = [point for point in points if point.time_s >= end_s]
        back = next((point for point in after if self._good(point, needed)), None)
        low = wording.metric(self.metric, needed)
        measured: dict[str, Any] = {"before": level, "needed": needed}
        if back is not None:
            took = _along(back, along) - (deadline - self._allowed)
            measured |= {f"after_{along}": took, "value": back.metrics[self.metric].mean}
            text = f"{self.metric} was back at {low} {_amount(took, along)} after '{window.event}'"
            in_time = _along(back, along) <= deadline
            return Judged("pass" if in_time else "fail", measured, asked, text)
        best = [point.metrics[self.metric].mean for point in after]
        known = [value for value in best if math.isfinite(value)]
        measured["best"] = (max if self.metric == "accuracy" else min)(known, default=None)
        reached = _along(run.points[-1], along)
        if reached < deadline:
            text = f"the run ended before {self.metric} was back at {low}, and before time was up"
            return unknown(text, asked, measured)
        best_text = wording.metric(self.metric, measured["best"])
        text = f"{self.metric} was not back at {low} after '{window.event}'; best: {best_text}"
        return Judged("fail", measured, asked, text)

    @property
    def _allowed(self) -> float:
        return float(self.within["rounds"] if isinstance(self.within, dict) else self.within)

    def _deadline(self, run: Run, window: Window, end_s: float) -> tuple[float, str]:
        """Until when, in rounds or seconds."""
        if not isinstance(self.within, dict):
            return end_s + self._allowed, "seconds"
        healed = window.end_round
        if healed is None:
            by_then = [point.round for point in run.points if point.time_s <= end_s]
            healed = int(by_then[-1]) if by_then else 0
        return healed + self._allowed, "rounds"

    def _good(self, point: Point, needed: float) -> bool:
        value = point.metrics[self.metric].mean
        return value >= needed if self.metric == "accuracy" else value <= needed


def _along(point: Point, along: str) -> float:
    return point.round if along == "rounds" else point.time_s


def _amount(value: float, along: str) -> str:
    return wording.seconds(value) if along == "seconds" else wording.plural(round(value), "round")
