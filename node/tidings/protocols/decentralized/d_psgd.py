"""Decentralized parallel SGD."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tidings.api import Inbox, Node, Outgoing, Rounds, Weights, protocols


@protocols.register("d_psgd")
@dataclass(frozen=True)
class DPSGD(Rounds):
    """Decentralized parallel SGD (Lian et al., NeurIPS 2017, Algorithm 1).

    Every node steps along its own stochastic gradient, then averages with its neighbours::

        x_i <- sum_j W_ij (x_j - lr g_j(x_j))

    which is Algorithm 1 with averaging and gradient step exchanged (adapt, then combine). With a
    constant step it ends near the optimum, at a distance that grows with lr, with the difference
    between the nodes' data and with 1 / spectral gap.

    On the wire: x. Cost per round and node: deg(i) messages of d floats.
    """

    lr: float

    def send(self, x: torch.Tensor, gradient: torch.Tensor, node: Node) -> tuple[object, Outgoing]:
        """Adapt: a step along the own gradient."""
        x = x - self.lr * gradient
        return x, node.to_neighbors(Weights(x))

    def receive(self, x: torch.Tensor, inbox: Inbox[Weights], node: Node) -> torch.Tensor:
        """Combine: average with what came."""
        return node.mix(x, inbox)
