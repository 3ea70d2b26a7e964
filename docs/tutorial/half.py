"""Chapter 3: gossip of compressed models, and a compressor of one's own."""

from dataclasses import dataclass

import numpy as np
import torch

from tidings import Compressed, Compressor, Inbox, Message, Node, Outgoing, Packed, Rounds
from tidings.errors import MalformedFrame


@dataclass(frozen=True)
class Half(Compressor):
    """Every number in half precision: 2 d bytes, relative error at most 2^-11."""

    def pack(self, vector: torch.Tensor, rng: np.random.Generator) -> Packed:
        return Packed(vector.numpy().astype("<f2").tobytes())

    def unpack(self, packed: Packed, dim: int) -> torch.Tensor:
        if len(packed.values) != 2 * dim or packed.metadata:
            raise MalformedFrame(f"expected {2 * dim} bytes of halves")
        return torch.from_numpy(np.frombuffer(packed.values, "<f2").astype(np.float32))

    def max_bytes(self, dim: int) -> int:
        return 2 * dim

    def expected_bits(self, dim: int) -> float:
        return 16.0 * dim


class Coded(Message):
    """A compressed model."""

    q: Compressed


@dataclass(frozen=True)
class State:
    """The model, and what the neighbours were told of it."""

    x: torch.Tensor
    told: torch.Tensor


@dataclass(frozen=True)
class CodedGossip(Rounds):
    """Gossip on what was told: ``x_i <- x_i + sum_j W_ij (C(x_j) - C(x_i))``."""

    lr: float
    compressor: Compressor

    messages = (Coded,)

    def start(self, x: torch.Tensor, node: Node) -> State:
        return State(x, x)

    def send(self, state: State, gradient: torch.Tensor, node: Node) -> tuple[State, Outgoing]:
        x = state.x - self.lr * gradient
        q = self.compressor(x, node.rng("compress"))
        return State(x, q.dense), node.to_neighbors(Coded(q))

    def receive(self, state: State, inbox: Inbox[Coded], node: Node) -> State:
        x = state.x.clone()
        for source, message in inbox.items():
            x.add_(message.q.dense - state.told, alpha=node.weight(source))
        return State(x, state.told)
