"""A fraction of the rate, a multiple of the delay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tidings.faults.base import Heal, ReshapingFault, Site, faults
from tidings.links.layers import Layer


@faults.register("link.scale")
@dataclass(frozen=True)
class LinkScale(ReshapingFault):
    """The links have ``rate`` times the rate and ``delay`` times the delay that was asked for."""

    rate: float = 0.5
    delay: float = 2.0

    def __post_init__(self) -> None:
        """A rate above zero."""
        if self.rate <= 0 or self.delay < 0:
            raise ValueError("rate must be above 0, delay must not be negative")

    def layers(self) -> Sequence[Layer]:
        """The factors."""
        return (Layer(rate_factor=self.rate, delay_factor=self.delay),)

    def begin(self, site: Site, targets: Sequence[int]) -> Heal:
        """One layer over each link."""
        return site.lay(targets, self.layers()[0])
