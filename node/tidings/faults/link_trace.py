"""A link that changes as a file says."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from tidings.faults.base import Heal, ReshapingFault, Site, faults, nothing
from tidings.links.layers import Layer
from tidings.registry import LocalPath
from tidings.units import Duration, Rate


@faults.register("link.trace")
@dataclass(frozen=True)
class LinkTrace(ReshapingFault):
    """The links follow a recorded trace: a CSV file with the columns ``time``, ``rate``, ``delay``.

    All with units (``2s,5Mbit/s,30ms``). Times count from the beginning of the fault and ascend;
    the first is 0. A rate or a delay may be left empty. The last row holds from its time on, or
    until ``loop`` (a time), when the trace begins again.
    """

    file: LocalPath
    loop: Duration | None = None

    def __post_init__(self) -> None:
        """The file must be readable, here and now."""
        self.steps()

    def steps(self) -> list[tuple[float, Layer]]:
        """(seconds since the beginning, layer) of each row; ValueError for a file without sense."""
        with Path(self.file).open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        steps = []
        for number, row in enumerate(rows, start=2):
            try:
                rate = Rate.parse(row["rate"]) if row.get("rate") else None
                delay = Duration.parse(row["delay"]) if row.get("delay") else Duration(0)
                steps.append((float(Duration.parse(row["time"])), Layer(rate, delay.ns)))
            except (KeyError, ValueError) as error:
                raise ValueError(f"{self.file}:{number}: {error}") from error
        times = [time_s for time_s, _ in steps]
        if not times or times[0] != 0 or any(b <= a for a, b in pairwise(times)):
            raise ValueError(f"{self.file}: times must begin with 0s and ascend")
        if self.loop is not None and self.loop <= times[-1]:
            raise ValueError(
                f"{self.file}: loop must be longer than the last time, {times[-1]:g} s"
            )
        return steps

    def layers(self) -> Sequence[Layer]:
        """One for each row."""
        return [layer for _, layer in self.steps()]

    def begin(self, site: Site, targets: Sequence[int]) -> Heal:
        """One layer at a time over each link."""
        return _Following(site, targets, self.steps(), self.loop).begin()


@dataclass
class _Following:
    site: Site
    targets: Sequence[int]
    steps: list[tuple[float, Layer]]
    loop: Duration | None
    seen: Counter[str] = field(default_factory=Counter)
    heal: Heal = nothing
    call_off: Callable[[], object] = nothing
    #: why a later row could not be followed
    failure: OSError | None = None

    def begin(self) -> Heal:
        self._turn(0)
        return self._end

    def _next(self, number: int) -> None:
        try:
            self._turn(number)
        except OSError as error:
            self.failure = error

    def _turn(self, number: int) -> None:
        self._mend()
        at_s, layer = self.steps[number]
        self.heal = self.site.lay(self.targets, layer)
        if number + 1 < len(self.steps):
            wait_s = self.steps[number + 1][0] - at_s
            self.call_off = self.site.later(wait_s, lambda: self._next(number + 1))
        elif self.loop is not None:
            self.call_off = self.site.later(self.loop - at_s, lambda: self._next(0))

    def _mend(self) -> None:
        heal, self.heal = self.heal, nothing
        self.seen.update(heal())

    def _end(self) -> Mapping[str, Any]:
        self.call_off()
        self._mend()
        if self.failure is not None:
            raise self.failure
        return self.seen
