"""Messages that arrive twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tidings.faults.base import Copy, Mail, StrikingFault, faults, probability
from tidings.links.shape import Dice


@faults.register("link.duplicate")
@dataclass(frozen=True)
class LinkDuplicate(StrikingFault):
    """The links deliver each message twice with probability ``p``. The copy takes its share of the
    rate, and is counted apart from what the node has sent."""

    p: float

    def __post_init__(self) -> None:
        """A probability."""
        probability(self.p)

    def strike(self, mail: Mail, dice: Dice, number: int) -> Sequence[Copy] | None:
        """The message and a copy."""
        if dice.uniform(8 * number) >= self.p:
            return None
        return Copy(mail.frame), Copy(mail.frame, extra=True)
