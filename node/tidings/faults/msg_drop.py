"""Chosen messages that do not leave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tidings.faults.base import Copy, Mail, faults
from tidings.faults.matching import MatchingFault
from tidings.links.shape import Dice


@faults.register("msg.drop")
@dataclass(frozen=True)
class MessageDrop(MatchingFault):
    """The messages are lost."""

    def strike(self, mail: Mail, dice: Dice, number: int) -> Sequence[Copy] | None:
        """Lost."""
        return () if self.hits(mail, dice, number) else None
