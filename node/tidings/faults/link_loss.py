"""Messages that do not arrive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tidings.faults.base import Copy, Mail, StrikingFault, faults, probability
from tidings.links.shape import Dice


@faults.register("link.loss")
@dataclass(frozen=True)
class LinkLoss(StrikingFault):
    """The links lose each message with probability ``p``, independently: whole messages, for above
    TCP no packet is lost."""

    p: float

    def __post_init__(self) -> None:
        """A probability."""
        probability(self.p)

    def strike(self, mail: Mail, dice: Dice, number: int) -> Sequence[Copy] | None:
        """Lost, or left alone."""
        return () if dice.uniform(8 * number) < self.p else None
