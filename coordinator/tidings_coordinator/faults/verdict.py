"""Whether the faults that were asked for happened, from the records alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from tidings.faults.node_join import NodeJoin
from tidings_coordinator.faults.director import DEAD
from tidings_coordinator.faults.firing import Firing

Applied = Literal["all", "partial", "none"]


def applied(firings: Sequence[Firing], lines: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each event with how many of its targets were hit, healed, and not hit.

    ``lines`` are those of faults.jsonl. A fault that was to end and did not counts as failed.
    """
    states: dict[tuple[str, int, str], list[Mapping[str, Any]]] = defaultdict(list)
    for line in lines:
        states[line["event"], line["occurrence"], line["target"]].append(line)
    events: dict[str, dict[str, Any]] = {}
    for firing in firings:
        found = events.setdefault(firing.event, _nothing(firing))
        for target in firing.targets:
            _count(found, firing, states[firing.event, firing.occurrence, str(target)])
    return list(events.values())


def verdict(events: Sequence[Mapping[str, Any]]) -> Applied:
    """All of what was asked for happened, some of it, or nothing; all where nothing was asked.

    What a node that was killed on purpose would have done to itself is not missed.
    """
    if all(
        event["active"] + event["moot"] == event["targets"] and not event["failed"]
        for event in events
    ):
        return "all"
    return "partial" if any(event["active"] for event in events) else "none"


def _nothing(firing: Firing) -> dict[str, Any]:
    counts = {"targets": 0, "active": 0, "moot": 0, "recovered": 0, "failed": 0, "late_s": 0.0}
    return {"event": firing.event, "fault": firing.fault.kind} | counts


def _count(found: dict[str, Any], firing: Firing, lines: Sequence[Mapping[str, Any]]) -> None:
    # the first of each: who comes back is hit again
    by_state = {line["state"]: line for line in reversed(lines)}
    active = by_state.get("active")
    found["targets"] += 1
    found["active"] += active is not None
    skipped = by_state.get("skipped")
    moot = skipped is not None and skipped["detail"].get("reason") == DEAD
    found["moot"] += moot and not firing.outside and active is None
    recovered = by_state.get("recovered")
    if recovered and isinstance(firing.fault, NodeJoin) and "why" in recovered["detail"]:
        # it was let go at the end, and never came
        recovered = None
    found["recovered"] += recovered is not None
    comes_back = getattr(firing.fault, "restart_after", None) is not None
    to_heal = firing.fault.lasting or comes_back
    missing = active is not None and to_heal and recovered is None
    found["failed"] += "failed" in by_state or missing
    if active is not None and firing.trigger.time_s is not None:
        late_s = active["time_s"] - firing.trigger.time_s
        found["late_s"] = round(max(found["late_s"], late_s), 6)
