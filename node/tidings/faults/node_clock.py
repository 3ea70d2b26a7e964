"""Clocks that are wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tidings.faults.base import Fault, Heal, Site, faults
from tidings.units import Duration


@faults.register("node.clock")
@dataclass(frozen=True)
class NodeClock(Fault):
    """The node's own clock is ``offset`` ahead (``behind``: behind) and gains ``drift_ppm``
    microseconds per second; so do its sleeps. What the run records keeps the right time."""

    offset: Duration = Duration(0)
    behind: bool = False
    drift_ppm: float = 0.0

    def __post_init__(self) -> None:
        """Wrong in some way, but not backwards."""
        if not self.offset and not self.drift_ppm:
            raise ValueError("give offset or drift_ppm")
        if self.drift_ppm <= -1e6:
            raise ValueError("a clock that runs backwards is no clock")

    def begin(self, site: Site, targets: Sequence[int]) -> Heal:
        """Set it wrong."""
        offset_s = -float(self.offset) if self.behind else float(self.offset)
        return site.skew(offset_s, self.drift_ppm / 1e6)
