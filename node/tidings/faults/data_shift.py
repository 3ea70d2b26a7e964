"""Data that drifts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tidings.faults.base import Fault, Heal, Site, faults


@faults.register("data.shift")
@dataclass(frozen=True)
class DataShift(Fault):
    """Every feature of the node's training samples is moved by ``size`` of its standard deviations
    over the node's share, up or down, the same for all samples."""

    size: float = 1.0

    def __post_init__(self) -> None:
        """Some way."""
        if self.size <= 0:
            raise ValueError("size must be above zero")

    def begin(self, site: Site, targets: Sequence[int]) -> Heal:
        """Move them."""
        return site.disturb("shift", self.size)
