"""Chapter 2: decentralized SGD, as two functions of a round."""

from dataclasses import dataclass

import torch

from tidings import Inbox, Node, Outgoing, Rounds, Weights


@dataclass(frozen=True)
class Gossip(Rounds):
    """Step along the own gradient, tell the neighbours, average with what they tell."""

    lr: float

    def send(self, x: torch.Tensor, gradient: torch.Tensor, node: Node) -> tuple[object, Outgoing]:
        x = x - self.lr * gradient
        return x, node.to_neighbors(Weights(x))

    def receive(self, x: torch.Tensor, inbox: Inbox[Weights], node: Node) -> torch.Tensor:
        return node.mix(x, inbox)
