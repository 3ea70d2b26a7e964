"""What checks of a metric share: bounds, and the moment at which they are to hold."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, PlainSerializer, PlainValidator, WithJsonSchema

from tidings.units import Duration, Ratio
from tidings_coordinator.checks.base import Check, Judged, unknown
from tidings_coordinator.experiment.section import Words
from tidings_coordinator.records.reading import Run
from tidings_coordinator.records.series import Point
from tidings_coordinator.report import wording


def _read_level(value: object) -> object:
    if isinstance(value, str):
        return Ratio.parse(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"write a number or a percentage such as '85%', got {value!r}")
    return float(value)


def _read_moment(value: object) -> object:
    if value == "end":
        return value
    if isinstance(value, dict):
        if set(value) == {"round"} and type(value["round"]) is int and value["round"] >= 0:
            return dict(value)
    elif isinstance(value, str):
        return Duration.parse(value)
    raise ValueError(f"write 'end', a time such as '20s' or {{round: 50}}, got {value!r}")


#: a number, or a percentage
Level = Annotated[
    float,
    Words("number or percentage"),
    PlainValidator(_read_level),
    PlainSerializer(lambda level: str(level) if isinstance(level, Ratio) else level),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string", "examples": ["85%"]}]}),
]
#: "end", a time or {round: r}
Moment = Annotated[
    Any,
    Words("'end', duration or {round: whole number}"),
    BeforeValidator(_read_moment),
    WithJsonSchema(
        {
            "anyOf": [
                {"const": "end"},
                {"type": "string", "examples": ["20s"]},
                {
                    "type": "object",
                    "properties": {"round": {"type": "integer", "minimum": 0}},
                    "required": ["round"],
                    "additionalProperties": False,
                },
            ]
        }
    ),
]


@dataclass(frozen=True, kw_only=True)
class Bounded(Check):
    """A check that holds a metric against bounds at a moment."""

    #: when: end, a time such as 20s, or {round: 50}; the last point that is not later counts
    at: Moment = "end"
    #: of the honest nodes: their mean, the lowest or the highest of them
    over: Literal["mean", "lowest", "highest"] = "mean"
    #: at least
    at_least: Level | None = field(default=None, metadata={"key": ">="})
    #: at most
    at_most: Level | None = field(default=None, metadata={"key": "<="})
    #: more than
    above: Level | None = field(default=None, metadata={"key": ">"})
    #: less than
    below: Level | None = field(default=None, metadata={"key": "<"})

    def __post_init__(self) -> None:
        if not self.bounds:
            raise ValueError("give at least one of '>=', '<=', '>', '<'")

    @property
    def bounds(self) -> dict[str, float]:
        """The bounds that were given, by sign."""
        signs = {">=": self.at_least, "<=": self.at_most, ">": self.above, "<": self.below}
        return {sign: float(level) for sign, level in signs.items() if level is not None}

    def judge_metric(self, run: Run, name: str) -> Judged:
        """Whether a metric is within the bounds at the moment."""
        point, when = point_at(run, self.at)
        if point is None:
            return unknown(when, self.bounds)
        spread = point.metrics.get(name)
        if spread is None:
            known = ", ".join(sorted(point.metrics)) or "none"
            return unknown(f"no {name} was recorded {when} (recorded: {known})", self.bounds)
        value = {"mean": spread.mean, "lowest": spread.low, "highest": spread.high}[self.over]
        held = all(_holds(value, sign, bound) for sign, bound in self.bounds.items())
        asked = " and ".join(f"{s} {wording.metric(name, b)}" for s, b in self.bounds.items())
        of = "" if self.over == "mean" else f"{self.over} "
        shown = wording.metric(name, value) if math.isfinite(value) else "not a finite number"
        text = f"{of}{name} {shown} {when}; asked: {asked}"
        return Judged("pass" if held else "fail", value, self.bounds, text)


def _holds(value: float, sign: str, bound: float) -> bool:
    match sign:
        case ">=":
            return value >= bound
        case "<=":
            return value <= bound
        case ">":
            return value > bound
        case _:
            return value < bound


def point_at(run: Run, at: Any) -> tuple[Point | None, str]:
    """The run's point at a moment, and the moment in words; else None, and why there is none."""
    if not run.points:
        return None, "there is no evaluation of all nodes"
    if at == "end":
        return run.points[-1], "at the end"
    last = run.points[-1]
    if isinstance(at, dict):
        asked, reached, unit = float(at["round"]), last.round, "round"
        before = [point for point in run.points if point.round <= asked]
    else:
        asked, reached, unit = float(at), last.time_s, "second"
        before = [point for point in run.points if point.time_s <= asked]
    if reached < asked:
        return None, f"the records end at {unit} {reached:.6g}, before {unit} {asked:g}"
    if not before:
        return None, f"there is no evaluation of all nodes by {unit} {asked:g}"
    return before[-1], f"at {unit} {asked:g}"
