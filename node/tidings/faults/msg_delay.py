"""Chosen messages that leave late."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tidings.faults.base import Copy, Mail, faults
from tidings.faults.matching import MatchingFault
from tidings.links.shape import Dice
from tidings.units import Duration


@faults.register("msg.delay")
@dataclass(frozen=True)
class MessageDelay(MatchingFault):
    """The messages leave ``by`` later; others overtake them."""

    by: Duration = Duration(0.1)

    def __post_init__(self) -> None:
        """Its own parameter."""
        super().__post_init__()
        if self.by <= 0:
            raise ValueError("by must be above zero")

    def strike(self, mail: Mail, dice: Dice, number: int) -> Sequence[Copy] | None:
        """Later."""
        return [Copy(mail.frame, self.by)] if self.hits(mail, dice, number) else None
