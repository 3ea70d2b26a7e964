"""Chosen messages that leave twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tidings.faults.base import Copy, Mail, faults
from tidings.faults.matching import MatchingFault
from tidings.links.shape import Dice


@faults.register("msg.duplicate")
@dataclass(frozen=True)
class MessageDuplicate(MatchingFault):
    """The messages leave twice."""

    def strike(self, mail: Mail, dice: Dice, number: int) -> Sequence[Copy] | None:
        """Twice."""
        if not self.hits(mail, dice, number):
            return None
        return Copy(mail.frame), Copy(mail.frame, extra=True)
