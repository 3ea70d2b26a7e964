"""``timeline.jsonl`` read back: what each node did when, and when it was down."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from tidings_coordinator.records.directory import read_lines
from tidings_coordinator.records.reading import Run
from tidings_coordinator.records.windows import DOWN, LEFT, PAUSED, spans

#: what a stretch of time may be; "down": no process, away, or paused
STATES = ("computing", "sending", "waiting", "down")


@dataclass(frozen=True)
class Span:
    """A stretch of a node's time, in microseconds of emulated time, and what it was spent on."""

    from_us: int
    to_us: int
    computing_us: int = 0
    sending_us: int = 0
    down: bool = False

    @property
    def state(self) -> str | None:
        """The one state that it is of; None where it is of several."""
        length = self.to_us - self.from_us
        if self.down:
            return "down"
        if self.computing_us >= length:
            return "computing"
        if self.sending_us >= length:
            return "sending"
        return "waiting" if self.computing_us == self.sending_us == 0 else None

    def shares(self) -> tuple[float, float]:
        """Of its length: computing, held up in sending."""
        length = max(1, self.to_us - self.from_us)
        return self.computing_us / length, self.sending_us / length


def timelines(run: Run) -> dict[int, list[Span]]:
    """The spans of every node that has left any, in order of time; neighbours of one state are one.

    While a node is down it has no other state.
    """
    found: dict[int, list[Span]] = defaultdict(list)
    for line in read_lines(run.path, "timeline"):
        start = int(line["from_us"])
        for length, computing, sending in line["spans"]:
            found[line["node"]].append(Span(start, start + length, computing, sending))
            start += length
    end_us = max((each[-1].to_us for each in found.values() if each), default=0)
    down = {node: list(_down(run, node, end_us)) for node in range(run.node_count)}
    return {
        node: _joined(_overlaid(sorted(found[node], key=lambda s: s.from_us), down.get(node, [])))
        for node in sorted({*found, *(node for node, each in down.items() if each and found)})
    }


def _down(run: Run, node: int, end_us: int) -> Iterator[tuple[int, int]]:
    """When a node was down: by faults, and by what the coordinator saw; in order of time."""
    stretches = spans(run.faults, {*DOWN, *LEFT, *PAUSED}).get(node, [])
    known = [(start_s, math.inf if end_s is None else end_s) for start_s, end_s in stretches]
    for event in run.events:
        if event["event"] == "died" and event.get("node") == node:
            time_s = float(event["time_s"])
            if not any(start_s <= time_s <= end_s for start_s, end_s in known):
                known.append((time_s, math.inf))
    for start_s, end_s in sorted(known):
        start_us, stop_us = round(1e6 * start_s), round(1e6 * min(end_s, end_us / 1e6))
        if stop_us > start_us:
            yield start_us, stop_us


def _overlaid(found: list[Span], down: list[tuple[int, int]]) -> list[Span]:
    """The spans without what is down, and with that."""
    for start, end in down:
        kept: list[Span] = []
        for span in found:
            if span.to_us <= start or span.from_us >= end:
                kept.append(span)
                continue
            if span.from_us < start:
                kept.append(_part(span, span.from_us, start))
            if span.to_us > end:
                kept.append(_part(span, end, span.to_us))
        found = [*kept, Span(start, end, down=True)]
    return sorted(found, key=lambda span: span.from_us)


def _part(span: Span, from_us: int, to_us: int) -> Span:
    """A piece of a span; what it was spent on is taken to be spread evenly."""
    share = (to_us - from_us) / max(1, span.to_us - span.from_us)
    computing, sending = round(share * span.computing_us), round(share * span.sending_us)
    return Span(from_us, to_us, computing, sending, span.down)


def _joined(found: list[Span]) -> list[Span]:
    """Neighbours of one and the same state as one span."""
    joined: list[Span] = []
    for span in found:
        last = joined[-1] if joined else None
        apart = last is None or last.to_us != span.from_us
        if last is None or apart or span.state is None or last.state != span.state:
            joined.append(span)
        else:
            joined[-1] = Span(
                last.from_us,
                span.to_us,
                last.computing_us + span.computing_us,
                last.sending_us + span.sending_us,
                span.down,
            )
    return joined
