"""A node's own clock, which faults may set wrong."""

from __future__ import annotations

from dataclasses import dataclass

from tidings.api.node import Clock
from tidings.units import NS_PER_S


@dataclass(frozen=True)
class _Skew:
    since_ns: int
    offset_ns: int
    drift: float


class SkewedClock:
    """Shows another clock's time plus what its skews make of it."""

    def __init__(self, true: Clock) -> None:
        self._true = true
        self._skews: dict[str, _Skew] = {}
        #: what it shows while it stands still
        self._shown_ns: int | None = None

    def pin(self, time_ns: int) -> None:
        """Show this time from now on."""
        self._shown_ns = time_ns

    def hold(self) -> None:
        """Show from now on what a clock that goes on shows now."""
        self._shown_ns = self.going_ns

    def skew(self, event: str, offset_s: float, drift: float) -> None:
        """Be ``offset_s`` ahead from now on, and gain ``drift`` seconds per second."""
        self._skews[event] = _Skew(self._true.now_ns, round(offset_s * NS_PER_S), drift)

    def mend(self, event: str) -> None:
        """Undo one skew: the clock jumps back."""
        self._skews.pop(event, None)

    @property
    def rate(self) -> float:
        """Seconds that it shows per true second."""
        return 1.0 + sum(skew.drift for skew in self._skews.values())

    @property
    def now_ns(self) -> int:
        """Nanoseconds since the start, as this clock has it."""
        return self.going_ns if self._shown_ns is None else self._shown_ns

    @property
    def going_ns(self) -> int:
        """As ``now_ns``, also while it stands still."""
        now_ns = self._true.now_ns
        wrong = (s.offset_ns + s.drift * (now_ns - s.since_ns) for s in self._skews.values())
        return now_ns + round(sum(wrong))

    @property
    def now_s(self) -> float:
        """Seconds since the start, as this clock has it."""
        return self.now_ns / NS_PER_S

    @property
    def going_s(self) -> float:
        """As ``now_s``, also while it stands still."""
        return self.going_ns / NS_PER_S
