"""What has become of the faults so far: the lines of ``faults.jsonl``, as they are written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tidings_coordinator.faults.firing import Firing, Target

Key = tuple[str, int]
State = Literal["active", "recovered", "failed", "skipped"]
Line = Mapping[str, Any]


@dataclass
class Book:
    """``write`` takes the lines of faults.jsonl."""

    firings: Sequence[Firing]
    write: Callable[[Line], object]
    #: what lasts until something is counted: from which count on, for who has to go on counting
    counted_from: dict[Key, Mapping[str, float]] = field(default_factory=dict)
    #: of each target the last line of each state, in the order of their coming
    _lines: dict[Key, dict[tuple[str, str], Line]] = field(default_factory=dict)
    _known: set[tuple[Key, str, str, float]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._asked = {firing.key: firing.trigger.asked() for firing in self.firings}

    def record(
        self,
        key: Key,
        fault: str,
        target: str,
        state: str,
        at: tuple[float, int | None],
        detail: Mapping[str, Any],
    ) -> None:
        """Write down that a target has changed, ``at`` an emulated time and in a round."""
        detail = dict(detail)
        if state == "active" and key in self.counted_from:
            detail["counted_from"] = dict(self.counted_from[key])
        line = {"event": key[0], "occurrence": key[1], "fault": fault, "target": target}
        line |= {"state": state, "time_s": round(at[0], 6), "round": at[1]}
        line |= {"asked": self._asked.get(key), "detail": detail}
        self.recall(line)
        self.write(line)

    def recall(self, line: Line) -> None:
        """Take note of a line that was written."""
        key = line["event"], line["occurrence"]
        target, state = line["target"], line["state"]
        lines = self._lines.setdefault(key, {})
        if state == "active":
            # it has come to it again
            lines.pop((target, "recovered"), None)
        lines[target, state] = line
        self._known.add((key, target, state, line["time_s"]))
        if "counted_from" in line["detail"]:
            self.counted_from.setdefault(key, line["detail"]["counted_from"])

    def knows(self, key: Key, target: str, state: str, time_s: float) -> bool:
        """Whether a line says that already."""
        return (key, target, state, round(time_s, 6)) in self._known

    def seen(self, key: Key, target: Target) -> dict[str, Line]:
        """The last line of each state of a target."""
        lines = self._lines.get(key, {})
        return {state: line for (name, state), line in lines.items() if name == str(target)}

    def began(self, key: Key) -> bool:
        """Whether there is a line of any of its targets."""
        return key in self._lines

    def first_s(self, key: Key, state: str) -> float | None:
        """When the first of its targets came into a state, as far as its last lines say."""
        lines = self._lines.get(key, {}).items()
        return min((line["time_s"] for (_, s), line in lines if s == state), default=None)

    def lasting(self, firing: Firing) -> Iterator[tuple[Target, Line]]:
        """The targets on which a firing holds, with the line that says since when."""
        for target in firing.targets:
            seen = self.seen(firing.key, target)
            if "active" in seen and "recovered" not in seen:
                yield target, seen["active"]
