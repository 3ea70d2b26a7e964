"""Links that go up and down."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tidings.faults.base import Fault, Heal, Site, faults, nothing
from tidings.units import Duration, Ratio


@faults.register("link.flap")
@dataclass(frozen=True)
class LinkFlap(Fault):
    """The links are cut for a share ``down`` of every ``period``, first of all at its beginning."""

    period: Duration
    down: Ratio = Ratio(0.5)

    scope = "link"
    picks = "links"

    def __post_init__(self) -> None:
        """Some time up, some time down."""
        if self.period <= 0 or not 0 < self.down < 1:
            raise ValueError("period must be above zero, down above 0 and below 100%")

    def begin(self, site: Site, targets: Sequence[int]) -> Heal:
        """Cut and heal in turn."""
        down_s = self.period * self.down
        return _Flapping(site, targets, down_s, self.period - down_s).begin()


@dataclass
class _Flapping:
    site: Site
    targets: Sequence[int]
    down_s: float
    up_s: float
    seen: Counter[str] = field(default_factory=Counter)
    heal: Heal = nothing
    call_off: Callable[[], object] = nothing

    def begin(self) -> Heal:
        self._down()
        return self._end

    def _down(self) -> None:
        self.heal = self.site.cut(self.targets, False)
        self.call_off = self.site.later(self.down_s, self._up)

    def _up(self) -> None:
        self._mend()
        self.call_off = self.site.later(self.up_s, self._down)

    def _mend(self) -> None:
        self.seen.update(self.heal())
        self.heal = nothing

    def _end(self) -> Mapping[str, Any]:
        self.call_off()
        self._mend()
        return self.seen
