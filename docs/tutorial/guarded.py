"""Chapter 4: gossip that listens with care, and an attacker of one's own."""

from dataclasses import dataclass

import numpy as np
import torch

from tidings import Aggregator, Attack, Inbox, Node, Outgoing, Rounds, View, Weights


@dataclass(frozen=True)
class Guarded(Rounds):
    """Gossip with a rule in place of the average: ``x_i <- F(x_j : j in N_i and i)``."""

    lr: float
    aggregator: Aggregator

    def send(self, x: torch.Tensor, gradient: torch.Tensor, node: Node) -> tuple[object, Outgoing]:
        x = x - self.lr * gradient
        return x, node.to_neighbors(Weights(x))

    def receive(self, x: torch.Tensor, inbox: Inbox[Weights], node: Node) -> torch.Tensor:
        rows = torch.stack([x, *(message.x for message in inbox.values())])
        return node.aggregate(self.aggregator, rows)


@dataclass(frozen=True)
class Shout(Attack):
    """Noise instead of a model, ``scale`` in every coordinate, another to each receiver."""

    scale: float = 1.0

    def corrupt(self, honest: torch.Tensor, view: View, rng: np.random.Generator) -> torch.Tensor:
        noise = rng.standard_normal(honest.numel(), dtype=np.float32)
        return self.scale * torch.from_numpy(noise)
