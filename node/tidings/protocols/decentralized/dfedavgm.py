"""Decentralized federated averaging with momentum."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tidings.api import Node, protocols
from tidings.protocols.decentralized.local_steps import LocalSteps


@protocols.register("dfedavgm")
@dataclass(frozen=True, kw_only=True)
class DFedAvgM(LocalSteps):
    """DFedAvgM (Sun, Li & Wang, IEEE TPAMI 2023, Algorithm 1).

    Every node makes ``local_steps`` heavy-ball steps from its model, then averages::

        y^(k+1) = y^k - lr g_i(y^k) + momentum (y^k - y^(k-1)),      y^(-1) = y^0 = x_i
        x_i     <- sum_j W_ij y_j^K

    The momentum starts anew every round. With ``momentum: 0`` it is DFedAvg, with one local step
    D-PSGD besides.

    On the wire: y^K. Cost per round and node: deg(i) messages of d floats.
    """

    momentum: float = 0.9

    def __post_init__(self) -> None:
        """A momentum below 1."""
        super().__post_init__()
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must be at least 0 and below 1, got {self.momentum:g}")

    async def train(self, x: torch.Tensor, node: Node) -> torch.Tensor:
        """Heavy-ball steps."""
        before = y = x
        for _ in range(self.local_steps):
            step = self.momentum * (y - before) - self.lr * await node.gradient(y)
            before, y = y, y + step
        return y
