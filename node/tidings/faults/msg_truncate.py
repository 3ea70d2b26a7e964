"""Chosen messages that end early."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tidings.faults.base import Copy, Mail, faults
from tidings.faults.matching import MatchingFault
from tidings.links.shape import Dice
from tidings.units import Ratio
from tidings.wire.damage import truncated


@faults.register("msg.truncate")
@dataclass(frozen=True)
class MessageTruncate(MatchingFault):
    """Of the messages a ``share`` of the bytes leaves; the receiver refuses and counts them."""

    share: Ratio = Ratio(0.5)

    def __post_init__(self) -> None:
        """Its own parameter."""
        super().__post_init__()
        if self.share >= 1:
            raise ValueError("share must be below 1: something must be missing")

    def strike(self, mail: Mail, dice: Dice, number: int) -> Sequence[Copy] | None:
        """Shorter."""
        return [Copy(truncated(mail.frame, self.share))] if self.hits(mail, dice, number) else None
