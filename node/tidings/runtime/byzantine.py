"""A Byzantine node is an honest one whose outgoing messages are rewritten."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from tidings.api.message import Compressed, Inbox, Message, fields_of
from tidings.api.node import Node
from tidings.api.plugins import Attack, Compressor, View
from tidings.api.protocol import Protocol
from tidings.runtime.oracle import Oracle
from tidings.runtime.plan import AttackPlan, NodePlan, derive_rng

#: waits for the messages of a kind that given nodes send in the current round
Spy = Callable[[type[Message], set[int]], Awaitable[Inbox[Message]]]


@dataclass
class Attacker:
    """Rewrites the vectors of one node's outgoing messages, per receiver."""

    attack: Attack
    protocol: Protocol
    #: the honest node that the attacker pretends to be
    node: Node
    #: all attackers; they know each other
    attackers: frozenset[int]
    #: the node and those that it hears
    neighborhood: frozenset[int]
    rng: np.random.Generator
    spy: Spy
    oracle: Oracle | None
    #: the last message that was to be sent, and what was seen of the others' then
    _last: tuple[Message, Inbox[Message]] | None = None
    #: what the attack remembers, by message type and field
    _memories: dict[tuple[type[Message], str], dict[str, object]] = field(default_factory=dict)

    async def rewrite(self, message: Message, receiver: int) -> Message:
        """The message to send in place of an honest one."""
        if self.attack.knowledge == "own":
            return self.rewrite_alone(message, receiver)
        if self._last is None or self._last[0] is not message:
            # one look for all receivers of a broadcast, so that one deadline is waited for at most
            self._last = (message, await self._look(type(message)))
        return self._rewrite(message, receiver, self._last[1])

    def rewrite_alone(self, message: Message, receiver: int) -> Message:
        """As :meth:`rewrite`, with no more than the node's own honest computation."""
        return self._rewrite(message, receiver, Inbox.EMPTY)

    async def _look(self, kind: type[Message]) -> Inbox[Message]:
        if self.attack.knowledge == "omniscient" and self.oracle is not None:
            return await self.oracle.see(kind, self.node.round, self.attackers)
        return await self.spy(kind, set(self.neighborhood - self.attackers))

    def _rewrite(self, message: Message, receiver: int, seen: Inbox[Message]) -> Message:
        changes: dict[str, torch.Tensor | Compressed] = {}
        for spec in fields_of(type(message)):
            if spec.kind not in ("vector", "compressed"):
                continue
            view = self._view(message, spec.name, receiver, seen)
            lie = self.attack.corrupt(view.honest[0], view, self.rng)
            if spec.kind == "compressed":
                compressor: Compressor = getattr(self.protocol, spec.compressor)
                changes[spec.name] = compressor(lie, self.rng)
            else:
                changes[spec.name] = lie
        return message.replace(**changes) if changes else message

    def _view(self, message: Message, name: str, receiver: int, seen: Inbox[Message]) -> View:
        kind, node = type(message), self.node
        crowd = self._crowd(kind)
        known = [message, *seen.values()]
        return View(
            torch.stack([_vector(one, name) for one in known]),
            len(crowd),
            len(crowd & self.attackers),
            receiver,
            sources=(node.id, *seen),
            round=node.round,
            model=node.model,
            start=node.initial(),
            memory=self._memories.setdefault((kind, name), {}),
        )

    def _crowd(self, kind: type[Message]) -> frozenset[int]:
        """Whose messages the receiver will have before it, as far as the attacker knows."""
        if self.attack.knowledge == "omniscient" and self.oracle is not None:
            return self.oracle.senders(kind)
        return self.neighborhood if self.node.cohort is None else frozenset(self.node.cohort)


def _vector(message: Message, name: str) -> torch.Tensor:
    value = getattr(message, name)
    return value.dense if isinstance(value, Compressed) else value


def attacker_for(
    plan: NodePlan,
    attack: AttackPlan | None,
    protocol: Protocol,
    node: Node,
    spy: Spy,
    oracle: Oracle | None,
) -> Attacker | None:
    """The node's attacker, if it is Byzantine."""
    if attack is None:
        return None
    return Attacker(
        attack=Attack.parse(attack.config),
        protocol=protocol,
        node=node,
        attackers=frozenset(attack.attackers),
        neighborhood=frozenset({plan.node, *plan.in_neighbors}),
        rng=derive_rng(plan.seed, plan.node, "attack"),
        spy=spy,
        oracle=oracle,
    )
