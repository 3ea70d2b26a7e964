"""Messages that arrive with wrong bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tidings.faults.base import (
    Copy,
    Mail,
    StrikingFault,
    faults,
    probability,
    some_bits,
    with_flipped,
)
from tidings.links.shape import Dice


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
        some_bits(self.bits)

    def strike(self, mail: Mail, dice: Dice, number: int) -> Sequence[Copy] | None:
        """The message with some bits flipped."""
        if dice.uniform(8 * number) >= self.p:
            return None
        return with_flipped(mail, dice, number, self.bits)
