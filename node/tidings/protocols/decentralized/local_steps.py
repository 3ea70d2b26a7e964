"""Decentralized federated averaging: local steps, then gossip; what its variants have in common."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch

from tidings.api import Node, Protocol, Weights


@dataclass(frozen=True, kw_only=True)
class LocalSteps(Protocol):
    """Base of synchronous protocols of ``local_steps`` steps and then :attr:`gossips` averagings.

    Every averaging is ``x_i <- sum_j W_ij x_j`` with what comes; a missing neighbour's weight goes
    to self. It leaves the mean over the nodes alone where weights are doubly stochastic.
    """

    lr: float
    local_steps: int = 5

    synchronous = True
    #: averagings per round
    gossips: ClassVar[int] = 1

    def __post_init__(self) -> None:
        """At least one local step."""
        super().__post_init__()
        if self.local_steps < 1:
            raise ValueError(f"local_steps must be at least 1, got {self.local_steps}")

    @abstractmethod
    async def train(self, x: torch.Tensor, node: Node) -> torch.Tensor:
        """The local steps from ``x`` ((d,) float32), as a new tensor."""

    async def run(self, node: Node) -> None:
        """Train and average, round after round."""
        node.restore()
        x = await node.rejoin(node.model, self)
        for _ in node.rounds():
            x = await self.train(await node.welcome(x, self), node)
            for node.step in range(self.gossips):
                await node.send_all(node.to_neighbors(Weights(x)))
                x = node.mix(x, await node.gather(Weights))
            node.model = x
            await node.report()
            await node.keep()
