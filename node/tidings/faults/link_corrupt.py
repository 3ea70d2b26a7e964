"""Messages that arrive with wrong bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tidings.faults.base import Copy, Mail, StrikingFault, faults, probability
from tidings.links.shape import Dice
from tidings.wire.damage import flipped


@faults.register("link.corrupt")
@dataclass(frozen=True)
class LinkCorrupt(StrikingFault):
    """The links flip ``bits`` bits of each message with probability ``p``. Above TCP nothing checks
    for that: what still decodes is used."""

    p: float
    bits: int = 1

    def __post_init__(self) -> None:
        """A probability."""
        probability(self.p)
        if not 1 <= self.bits <= 7:
            raise ValueError(f"bits must be from 1 to 7, got {self.bits}")

    def strike(self, mail: Mail, dice: Dice, number: int) -> Sequence[Copy] | None:
        """The message with some bits flipped."""
        first = 8 * number
        if dice.uniform(first) >= self.p:
            return None
        places = [dice.uniform(first + 1 + bit) for bit in range(self.bits)]
        return [Copy(flipped(mail.frame, places))]
