"""Chosen messages, once more."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from tidings.faults.base import Copy, Mail, Striker, faults
from tidings.faults.matching import MatchingFault
from tidings.links.shape import Dice
from tidings.wire.frame import Frame


@faults.register("msg.replay")
@dataclass(frozen=True)
class MessageReplay(MatchingFault):
    """Behind each message that is hit, the one that was sent ``back`` messages before it leaves
    once more: of an earlier round, so a receiver that has gathered that round counts it as late."""

    back: int = 1

    def __post_init__(self) -> None:
        """An earlier one."""
        super().__post_init__()
        if not 1 <= self.back <= 64:
            raise ValueError(f"back must be from 1 to 64, got {self.back}")

    def fresh(self) -> Striker:
        """Each link remembers its own messages."""
        return _Replay(self, deque(maxlen=self.back + 1))


@dataclass
class _Replay:
    fault: MessageReplay
    past: deque[Frame]

    def strike(self, mail: Mail, dice: Dice, number: int) -> Sequence[Copy] | None:
        """The message, and behind it an old one."""
        self.past.append(mail.frame)
        if not self.fault.hits(mail, dice, number) or len(self.past) <= self.fault.back:
            return None
        return Copy(mail.frame), Copy(self.past[0], extra=True)
