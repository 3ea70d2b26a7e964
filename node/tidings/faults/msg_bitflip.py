"""Chosen messages with wrong bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tidings.faults.base import Copy, Mail, faults, some_bits, with_flipped
from tidings.faults.matching import MatchingFault
from tidings.links.shape import Dice


@faults.register("msg.bitflip")
@dataclass(frozen=True)
class MessageBitflip(MatchingFault):
    """``bits`` bits of the messages are flipped; what still decodes is used."""

    bits: int = 1

    def __post_init__(self) -> None:
        """Its own parameter."""
        super().__post_init__()
        some_bits(self.bits)

    def strike(self, mail: Mail, dice: Dice, number: int) -> Sequence[Copy] | None:
        """With some bits flipped."""
        if not self.hits(mail, dice, number):
            return None
        return with_flipped(mail, dice, number, self.bits)
