"""Labels that are wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tidings.faults.base import Fault, Heal, Site, faults
from tidings.units import Ratio


@faults.register("data.label_noise")
@dataclass(frozen=True)
class LabelNoise(Fault):
    """A ``fraction`` of the node's training samples has another label, drawn evenly; the same one
    for as long as it lasts."""

    fraction: Ratio

    def __post_init__(self) -> None:
        """Some of them."""
        if self.fraction <= 0:
            raise ValueError("fraction must be above zero")

    def begin(self, site: Site, targets: Sequence[int]) -> Heal:
        """Spoil the labels."""
        return site.disturb("label_noise", float(self.fraction))
