"""``faults.jsonl`` read back: when each fault held, and on whom."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Row = Mapping[str, Any]

#: faults while which a node's process is not there, or is away on purpose
DOWN = ("node.crash", "node.churn")
LEFT = ("node.leave", "node.join")
PAUSED = ("node.pause",)
#: faults that are over as soon as they have happened
INSTANT = ("mark", "link.reset")
#: faults that let nothing pass over a link
CUTS = ("net.partition", "link.cut", "node.isolate")


@dataclass
class Window:
    """One occurrence of a fault event, over all its targets."""

    event: str
    occurrence: int
    fault: str
    #: what was asked for: a time, a round, a condition; None where that is not known
    asked: Mapping[str, Any] | None = None
    #: target -> emulated seconds from which it held there, and until when
    active: dict[str, float] = field(default_factory=dict)
    recovered: dict[str, float] = field(default_factory=dict)
    #: target -> its round then, as far as that was told
    rounds: dict[str, int] = field(default_factory=dict)
    recovered_rounds: dict[str, int] = field(default_factory=dict)
    #: target -> why nothing came of it
    failed: dict[str, str] = field(default_factory=dict)
    #: target -> what is known of what it did there
    details: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def targets(self) -> tuple[str, ...]:
        """Whom it concerned, whatever became of it."""
        return tuple(dict.fromkeys([*self.active, *self.failed]))

    @property
    def start_s(self) -> float | None:
        """When it first held anywhere; None where it never did."""
        return min(self.active.values(), default=None)

    @property
    def healed(self) -> bool:
        """Whether it is over wherever it held."""
        return bool(self.active) and set(self.active) <= set(self.recovered)

    @property
    def end_s(self) -> float | None:
        """When it was over everywhere; None while it is not."""
        return max(self.recovered.values()) if self.healed else None

    @property
    def end_round(self) -> int | None:
        """The latest round in which a target recovered; None where that is not known."""
        return max(self.recovered_rounds.values(), default=None) if self.healed else None

    @property
    def name(self) -> str:
        """What links call it: the event, and which time where that is not the first."""
        return f"{self.event}#{self.occurrence}" if self.occurrence else self.event


def windows(rows: Iterable[Row]) -> list[Window]:
    """The lines of ``faults.jsonl`` by event and occurrence, in the order of their beginning."""
    found: dict[tuple[str, int], Window] = {}
    for row in rows:
        event, occurrence = str(row["event"]), int(row.get("occurrence") or 0)
        window = found.setdefault(
            (event, occurrence), Window(event, occurrence, str(row["fault"]), row.get("asked"))
        )
        _take(window, row)
    return sorted(found.values(), key=lambda w: (w.start_s is None, w.start_s or 0.0, w.event))


def _take(window: Window, row: Row) -> None:
    target, time_s, round_ = str(row["target"]), float(row["time_s"] or 0.0), row.get("round")
    detail = dict(row.get("detail") or {})
    match row["state"]:
        case "active":
            window.active.setdefault(target, time_s)
            window.rounds |= {} if round_ is None else {target: int(round_)}
        case "recovered":
            window.recovered[target] = time_s
            window.recovered_rounds |= {} if round_ is None else {target: int(round_)}
        case state:
            window.failed[target] = str(detail.get("reason") or state)
    window.details.setdefault(target, {}).update(detail)


def spans(
    rows: Iterable[Row], faults: Container[str]
) -> dict[int, list[tuple[float, float | None]]]:
    """When nodes were under one of ``faults``: (from, to) in seconds, to None for not over."""
    found: dict[int, list[tuple[float, float | None]]] = {}
    for window in windows(row for row in rows if row["fault"] in faults):
        for target, start_s in window.active.items():
            if target.isdecimal():
                span = (start_s, window.recovered.get(target))
                found.setdefault(int(target), []).append(span)
    return found
