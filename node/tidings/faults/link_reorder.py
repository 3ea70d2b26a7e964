"""Messages that are overtaken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tidings.faults.base import Copy, Mail, StrikingFault, faults, probability
from tidings.links.shape import Dice
from tidings.units import Duration


@faults.register("link.reorder")
@dataclass(frozen=True)
class LinkReorder(StrikingFault):
    """The links hold back each message with probability ``p`` for ``by``, so that later ones of the
    same link overtake it."""

    p: float
    by: Duration = Duration(0.05)

    def __post_init__(self) -> None:
        """A probability."""
        probability(self.p)
        if self.by <= 0:
            raise ValueError("by must be above zero")

    def strike(self, mail: Mail, dice: Dice, number: int) -> Sequence[Copy] | None:
        """The message, later."""
        return [Copy(mail.frame, self.by)] if dice.uniform(8 * number) < self.p else None
