"""What the faults of single messages share: which messages they mean."""

from __future__ import annotations

from dataclasses import dataclass

from tidings.faults.base import Mail, StrikingFault, probability
from tidings.links.shape import Dice

#: the frames of atomic exchanges that carry no message
HANDSHAKE = "handshake"


@dataclass(frozen=True)
class MatchingFault(StrikingFault):
    """Strikes with probability ``p`` the messages of one type (``message``: its name,
    or ``handshake``) and of one ``round``; all where these are left out."""

    p: float = 1.0
    message: str | None = None
    round: int | None = None

    def __post_init__(self) -> None:
        """A probability."""
        probability(self.p)

    def hits(self, mail: Mail, dice: Dice, number: int) -> bool:
        """Whether this message is struck; takes the first of its draws."""
        name = HANDSHAKE if mail.kind is None else mail.kind.__name__
        if self.message not in (None, name) or self.round not in (None, mail.round):
            return False
        return dice.uniform(8 * number) < self.p
