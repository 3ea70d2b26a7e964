"""Another rate, more delay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tidings.faults.base import Heal, ReshapingFault, Site, faults
from tidings.links.layers import Layer
from tidings.units import Duration, Rate


@faults.register("link.shape")
@dataclass(frozen=True)
class LinkShapeFault(ReshapingFault):
    """The links have at most this rate, and this much more delay and jitter, than was asked for.

    Several on one link: the smallest rate, the sum of the delays, jitters as variances add.
    """

    rate: Rate | None = None
    delay: Duration = Duration(0)
    jitter: Duration = Duration(0)

    def __post_init__(self) -> None:
        """Something must change."""
        if self.rate is None and not self.delay and not self.jitter:
            raise ValueError("give at least one of rate, delay, jitter")

    def layers(self) -> Sequence[Layer]:
        """What is given."""
        rate = None if self.rate is None else float(self.rate)
        return (Layer(rate, self.delay.ns, self.jitter.ns),)

    def begin(self, site: Site, targets: Sequence[int]) -> Heal:
        """One layer over each link."""
        return site.lay(targets, self.layers()[0])
