"""CHOCO-SGD: gossip of compressed differences."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from tidings.api import (
    Compressed,
    Compressor,
    Inbox,
    Message,
    Node,
    Outgoing,
    Rounds,
    Vector,
    protocols,
)


class Difference(Message):
    """The compressed difference between a model and what the neighbours know of it."""

    q: Compressed


class Public(Message):
    """A public copy in full, for a neighbour that comes back or is come back to."""

    x: Vector


@dataclass(frozen=True)
class State:
    """Model, the own public copy, and the copies of the neighbours' public ones: (d,) float32."""

    x: torch.Tensor
    public: torch.Tensor
    replicas: dict[int, torch.Tensor]


@protocols.register("choco_sgd")
@dataclass(frozen=True)
class ChocoSGD(Rounds):
    """CHOCO-SGD (Koloskova, Stich & Jaggi, ICML 2019, Algorithm 2).

    Every node has a public copy xh_i of its model, of which all its neighbours hold replicas; only
    compressed updates of it travel::

        x_i  <- x_i - lr g_i(x_i)
        q_i   = C(x_i - xh_i)                      to all neighbours
        xh_j <- xh_j + q_j                         for the neighbours and itself
        x_i  <- x_i + gamma sum_j W_ij (xh_j - xh_i)

    The gossip leaves the mean of the x_i untouched, whatever the compressor. It needs every q: a
    lost one leaves a replica wrong for good, and so would a graph that changes. gamma has to be
    smaller the harder C compresses: 1 without compression, about 0.1 to 0.4 for a few per cent of
    the coordinates. When a node comes back after a crash, it and each neighbour exchange their
    public copies in full once, so that replicas and originals agree again bit by bit.

    On the wire: q. Cost per round and node: deg(i) compressed messages.
    """

    lr: float
    gamma: float = 0.3
    compressor: Compressor = field(default_factory=lambda: Compressor.parse("top_k"))

    messages = (Difference, Public)
    resyncs = Public
    stochastic = "doubly"
    static_graph = True

    def __post_init__(self) -> None:
        """A gossip step between 0 and 1."""
        super().__post_init__()
        if not 0 < self.gamma <= 1:
            raise ValueError(f"gamma must be above 0 and at most 1, got {self.gamma:g}")

    def start(self, x: torch.Tensor, node: Node) -> State:
        """All public copies start at zero."""
        return State(x, torch.zeros_like(x), {})

    def send(self, state: State, gradient: torch.Tensor, node: Node) -> tuple[State, Outgoing]:
        """A gradient step, then the compressed difference to the public copy."""
        x = state.x - self.lr * gradient
        q = self.compressor(x - state.public, node.rng("compress"))
        public = state.public + q.dense
        return State(x, public, state.replicas), node.to_neighbors(Difference(q))

    def resync_with(self, state: State, peer: int, node: Node) -> Public:
        """The own public copy."""
        return Public(state.public)

    def resync(self, state: State, peer: int, message: Public | None, node: Node) -> State:
        """Take the neighbour's public copy for its replica."""
        if message is None:
            return state
        return State(state.x, state.public, state.replicas | {peer: message.x})

    def receive(self, state: State, inbox: Inbox[Difference], node: Node) -> State:
        """Bring the replicas up to date, then gossip on public copies only."""
        replicas = dict(state.replicas)
        for j, message in inbox.items():
            replicas[j] = replicas.get(j, 0.0) + message.q.dense
        x = state.x.clone()
        for j in sorted(replicas):
            x.add_(replicas[j] - state.public, alpha=self.gamma * node.weight(j))
        return State(x, state.public, replicas)
