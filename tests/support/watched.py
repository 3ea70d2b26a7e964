"""A node that writes down what an asynchronous protocol does to it, in the order of happening."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from tidings.api import Message, Node
from tidings.protocols.asynchronous.dadao import DADAO


class Happened(NamedTuple):
    """``look`` (a gradient is taken now), ``step`` (it was applied), ``offer`` or ``commit``."""

    what: str
    node: int
    time_s: float
    #: the other end of an exchange
    peer: int = -1
    #: which of this node's offers it is, or was committed
    offer: int = -1
    #: the ``t`` of what this node gave away, where it has one
    t: float = 0.0


class Watched:
    """Stands before a node; everything that it does not watch goes straight through."""

    def __init__(self, node: Node, events: list[Happened]) -> None:
        self.__dict__.update(_node=node, _events=events, _offers=[])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._node, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._node, name, value)

    def _note(self, what: str, peer: int = -1, mine: Message | None = None) -> None:
        node, t = self._node, getattr(mine, "t", 0.0)
        offer = next((k for k, value in enumerate(self._offers) if value is mine), -1)
        self._events.append(Happened(what, node.id, node.clock.now_s, peer, offer, t))

    def on_exchange(self, offer: Any, commit: Any) -> None:
        """Note offers and commits."""

        def watched_offer(peer: int, seen: Any) -> Message:
            value: Message = offer(peer, seen)
            self._offers.append(value)
            self._note("offer", peer, value)
            return value

        def watched_commit(peer: int, mine: Any, theirs: Any) -> None:
            commit(peer, mine, theirs)
            self._note("commit", peer, mine)

        self._node.on_exchange(watched_offer, watched_commit)

    async def gradient(self, x: torch.Tensor) -> torch.Tensor:
        """Note where gradients are taken."""
        self._note("look")
        result: torch.Tensor = await self._node.gradient(x)
        return result

    async def report(self, **metrics: float) -> None:
        """Note the end of a step."""
        self._note("step")
        await self._node.report(**metrics)


@dataclass(frozen=True)
class TracedDADAO(DADAO):
    """Writes down what happens, in order."""

    events: list[Happened] = field(default_factory=list, init=False)

    async def run(self, node: Node) -> None:
        """As ever, watched."""
        await super().run(Watched(node, self.events))  # type: ignore[arg-type]


def committed_pairs(events: list[Happened]) -> dict[tuple[int, int], int]:
    """(node, its offer) of every commit -> the offer that the peer gave in return.

    A node is in one exchange at a time, so the k-th commit with a peer is the peer's k-th with it.
    """
    offers: dict[tuple[int, int], list[int]] = {}
    for event in events:
        if event.what == "commit":
            offers.setdefault((event.node, event.peer), []).append(event.offer)
    return {
        (i, mine): theirs
        for (i, j), given in offers.items()
        for mine, theirs in zip(given, offers[j, i], strict=True)
    }
