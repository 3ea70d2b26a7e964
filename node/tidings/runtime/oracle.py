"""What omniscient attackers are shown: what all nodes send. Only where they share a process."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence, Set
from typing import Protocol as Interface

from tidings.api.message import Inbox, Message


class Watched(Interface):
    """What the oracle knows of a node."""

    id: int
    role: str
    dead: bool
    cohort: tuple[int, ...] | None


class Oracle:
    """Keeps what nodes mean to send, by kind and round, until the next round but one.

    In an asynchronous run nothing is waited for: an attacker sees what was sent last.
    """

    def __init__(self, synchronous: bool, wait_s: float) -> None:
        self._synchronous = synchronous
        self._wait_s = wait_s
        #: by kind and node: the last messages, by round
        self._sent: dict[type[Message], dict[int, dict[int, Message]]] = {}
        self._news = asyncio.Event()
        self.nodes: Sequence[Watched] = ()

    def post(self, node: int, round_: int, message: Message) -> None:
        """A node is about to send; of what differs by receiver the first counts."""
        rounds = self._sent.setdefault(type(message), {}).setdefault(node, {})
        rounds.setdefault(round_, message)
        for past in [r for r in rounds if r < round_ - 1]:
            del rounds[past]
        self._news.set()

    def senders(self, kind: type[Message]) -> frozenset[int]:
        """Who sends messages of a kind in this round."""
        able = [node for node in self.nodes if kind.sender in (None, node.role)]
        drawn = next((n.cohort for n in self.nodes if n.cohort is not None), None)
        return frozenset(n.id for n in able if drawn is None or n.id in drawn)

    async def see(self, kind: type[Message], round_: int, attackers: Set[int]) -> Inbox[Message]:
        """The honest messages of a kind and round, when all living nodes have sent theirs."""
        honest = self.senders(kind) - attackers
        if not self._synchronous:
            last = self._sent.get(kind, {})
            return Inbox({i: last[i][max(last[i])] for i in honest if i in last})
        try:
            async with asyncio.timeout(self._wait_s):
                while (found := self._found(kind, round_, honest)).missing:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            found = self._found(kind, round_, honest)
        return found

    def _found(self, kind: type[Message], round_: int, honest: Set[int]) -> Inbox[Message]:
        sent = self._sent.get(kind, {})
        found = {i: sent[i][round_] for i in honest if round_ in sent.get(i, {})}
        dead = {node.id for node in self.nodes if node.dead}
        return Inbox(found, tuple(sorted(honest - set(found) - dead)))
