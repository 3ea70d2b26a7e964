"""Chosen messages with wrong bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tidings.faults.base import Copy, Mail, faults
from tidings.faults.matching import MatchingFault
from tidings.links.shape import Dice
from tidings.wire.damage import flipped


@faults.register("msg.bitflip")
@dataclass(frozen=True)
class MessageBitflip(MatchingFault):
    """``bits`` bits of the messages are flipped; what still decodes is used."""

    bits: int = 1

    def __post_init__(self) -> None:
        """Its own parameter."""
        super().__post_init__()
        if not 1 <= self.bits <= 7:
            raise ValueError(f"bits must be from 1 to 7, got {self.bits}")

    def strike(self, mail: Mail, dice: Dice, number: int) -> Sequence[Copy] | None:
        """With some bits flipped."""
        if not self.hits(mail, dice, number):
            return None
        places = [dice.uniform(8 * number + 1 + bit) for bit in range(self.bits)]
        return [Copy(flipped(mail.frame, places))]
