"""A Byzantine node is an honest one whose outgoing messages are rewritten."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import numpy as np
import torch

from tidings.api.message import Compressed, Inbox, Message, fields_of
from tidings.api.plugins import Attack, Compressor, View
from tidings.api.protocol import Protocol
from tidings.runtime.plan import NodePlan, derive_rng

#: waits for the messages of a kind that given nodes send in the current round
Spy = Callable[[type[Message], set[int]], Awaitable[Inbox[Message]]]


@dataclass
class Attacker:
    """Rewrites the vectors of one node's outgoing messages, per receiver.

    ``nodes`` and ``attackers`` count the node's neighbourhood, itself included; ``honest`` are the
    neighbours that are not attackers.
    """

    attack: Attack
    protocol: Protocol
    nodes: int
    attackers: int
    honest: set[int]
    rng: np.random.Generator
    spy: Spy
    #: the last message that was to be sent, and what was seen of the others' then
    _last: tuple[Message, list[Message]] | None = None

    async def rewrite(self, message: Message, receiver: int) -> Message:
        """The message to send in place of an honest one."""
        if self.attack.knowledge == "own":
            return self.rewrite_alone(message, receiver)
        if self._last is None or self._last[0] is not message:
            # one look for all receivers of a broadcast, so that one deadline is waited for at most
            seen = await self.spy(type(message), self.honest)
            self._last = (message, list(seen.values()))
        return self._rewrite(message, receiver, self._last[1])

    def rewrite_alone(self, message: Message, receiver: int) -> Message:
        """As :meth:`rewrite`, with no more than the node's own honest computation."""
        return self._rewrite(message, receiver, [])

    def _rewrite(self, message: Message, receiver: int, seen: list[Message]) -> Message:
        changes: dict[str, torch.Tensor | Compressed] = {}
        for field in fields_of(type(message)):
            if field.kind not in ("vector", "compressed"):
                continue
            honest = _vector(message, field.name)
            rows = torch.stack([honest, *(_vector(other, field.name) for other in seen)])
            view = View(rows, self.nodes, self.attackers, receiver)
            lie = self.attack.corrupt(honest, view, self.rng)
            if field.kind == "compressed":
                compressor: Compressor = getattr(self.protocol, field.compressor)
                changes[field.name] = compressor(lie, self.rng)
            else:
                changes[field.name] = lie
        return message.replace(**changes) if changes else message


def _vector(message: Message, field: str) -> torch.Tensor:
    value = getattr(message, field)
    return value.dense if isinstance(value, Compressed) else value


def attacker_for(plan: NodePlan, protocol: Protocol, spy: Spy) -> Attacker | None:
    """The node's attacker, if its plan says that it is Byzantine."""
    if plan.attack is None:
        return None
    neighborhood = {plan.node, *plan.in_neighbors}
    attackers = neighborhood & set(plan.attack.attackers)
    return Attacker(
        attack=Attack.parse(plan.attack.config),
        protocol=protocol,
        nodes=len(neighborhood),
        attackers=len(attackers),
        honest=neighborhood - attackers,
        rng=derive_rng(plan.seed, plan.node, "attack"),
        spy=spy,
    )
