"""Decentralized federated learning with sharpness-aware minimisation."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tidings.api import GradientAt, GraphFacts, Message, Node, Weights, protocols
from tidings.protocols.decentralized.local_steps import LocalSteps


@protocols.register("dfedsam")
@dataclass(frozen=True, kw_only=True)
class DFedSAM(LocalSteps):
    """DFedSAM and, with ``gossips`` > 1, DFedSAM-MGS (Shi et al., ICML 2023, Algorithms 1 and 2).

    Every node makes ``local_steps`` sharpness-aware steps from its model, each with two gradients
    on one batch, then averages ``gossips`` times (Q, multiple gossip steps; 4 in the paper)::

        g = g_i(y),    y <- y - lr g_i(y + rho g / |g|)         K times from x_i
        z <- sum_j W_ij z_j                                     Q times from y^K; the last is x_i

    After Q averagings the disagreement of the y^K is smaller by lambda^Q, lambda = 1 - spectral
    gap. With ``rho: 0`` it is DFedAvg; a gradient of zero is not divided.

    On the wire: z. Cost per round and node: Q deg(i) messages of d floats, 2 K gradients (K where
    rho is 0).
    """

    rho: float = 0.01
    gossips: int = 1  # type: ignore[misc]

    def __post_init__(self) -> None:
        """A radius that is not negative, at least one averaging."""
        super().__post_init__()
        if self.rho < 0:
            raise ValueError(f"rho must not be negative, got {self.rho:g}")
        if self.gossips < 1:
            raise ValueError(f"gossips must be at least 1, got {self.gossips}")

    def traffic(self, graph: GraphFacts) -> dict[type[Message], float]:
        """One message per neighbour and averaging."""
        return {Weights: self.gossips * graph.arcs}

    async def train(self, x: torch.Tensor, node: Node) -> torch.Tensor:
        """Sharpness-aware steps."""
        y = x
        for _ in range(self.local_steps):
            y = y - self.lr * await self._gradient(y, node)
        return y

    async def _gradient(self, y: torch.Tensor, node: Node) -> torch.Tensor:
        if not self.rho:
            return await node.gradient(y)

        def uphill(at: GradientAt) -> torch.Tensor:
            gradient = at(y)
            norm = float(gradient.norm())
            return at(y + gradient * (self.rho / norm)) if norm > 0 else gradient

        return await node.on_batch(uphill, gradients=2)
