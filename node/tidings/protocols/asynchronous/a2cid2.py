"""A2CiD2: asynchronous gossip with continuous momentum."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from tidings.api import GraphFacts, Message, Node, Outcome, Protocol, Vector, protocols
from tidings.protocols.asynchronous.poisson import PoissonClock
from tidings.units import Duration


class Point(Message):
    """A node's model, its momentum mixed in up to now."""

    x: Vector


class Pair:
    """``x`` and its momentum twin ``xt`` ((d,) float32 each), brought to time ``t``."""

    def __init__(self, x: torch.Tensor, eta: float, gain: float) -> None:
        #: changed in place
        self.x, self.twin = x, x.clone()
        self.eta, self.gain = eta, gain
        self.t = 0.0

    def advance(self, t: float) -> None:
        """Follow ``x' = eta (xt - x)``, ``xt' = eta (x - xt)`` up to ``t``; never back."""
        if t > self.t:
            # the mean of the two stays, their difference decays
            moved = (self.twin - self.x) * (-math.expm1(-2 * self.eta * (t - self.t)) / 2)
            self.x.add_(moved)
            self.twin.sub_(moved)
            self.t = t

    def gradient_event(self, change: torch.Tensor) -> None:
        """The same step for both."""
        self.x.add_(change)
        self.twin.add_(change)

    def gossip_event(self, mine: torch.Tensor, theirs: torch.Tensor) -> None:
        """Half way to the other's model, the twin by its own gain; opposite at the other end."""
        self.x.add_(theirs - mine, alpha=0.5)
        self.twin.add_(theirs - mine, alpha=self.gain)


@protocols.register("a2cid2")
@dataclass(frozen=True, kw_only=True)
class A2CiD2(Protocol):
    """A2CiD2 (Nabli, Belilovsky & Oyallon, NeurIPS 2023, Algorithm 1).

    AD-PSGD with a momentum of averaging. Each node takes gradients at its own pace, and averagings
    with random neighbours come at the points of a Poisson clock; in between the model and its
    twin mix with each other, in a time in which a node takes one gradient per ``unit``::

        x' = eta (xt - x)                        xt' = eta (x - xt)
        gradient:   x <- x - lr u                xt <- xt - lr u       u <- momentum u + g
        averaging:  x <- x + (x_j - x) / 2       xt <- xt + alpha_t (x_j - x)
        eta = 1 / (2 sqrt(chi_1 chi_2))          alpha_t = sqrt(chi_1 / chi_2) / 2

    chi_1 and chi_2 are those of the Laplacian with ``rate`` averagings per node and unit, the same
    rate on every edge. Disagreement falls like exp(-t / sqrt(chi_1 chi_2)) and not exp(-t / chi_1).
    ``accelerated: false`` sets eta = 0: plain asynchronous gossip, and so it is on a complete graph
    in any case, where chi_1 = chi_2 keeps xt = x.

    The sum of x + xt over the nodes, and at a common time that of x, change by gradients only: a
    node mixes first and then shows its x (the public code sends before it mixes). The lower end
    keeps an edge's clock, and leaves out averagings with a node that is suspected dead.

    On the wire: x, once each way per averaging. Cost per round: ``rate`` messages of d floats per
    node.
    """

    lr: float
    momentum: float = 0.0
    rate: float = 1.0
    unit: Duration = Duration(0.1)
    accelerated: bool = True

    messages = (Point,)
    static_graph = True
    two_way_links = True

    def __post_init__(self) -> None:
        """Rates above zero, a momentum below 1."""
        super().__post_init__()
        for name in ("rate", "unit"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above zero, got {getattr(self, name)}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must be at least 0 and below 1, got {self.momentum:g}")

    def traffic(self, graph: GraphFacts) -> dict[type[Message], float]:
        """A message each way per averaging; a node takes part in ``rate`` of them per unit."""
        return {Point: self.rate * graph.nodes}

    def constants(self, graph: GraphFacts) -> tuple[float, float]:
        """``eta`` and ``alpha_t``."""
        if not self.accelerated:
            return 0.0, 0.5
        # of all averagings per unit, half per node for each has two ends
        total = self.rate * graph.nodes / 2
        chi_1, chi_2 = graph.chi_1 / total, graph.chi_2 / total
        return 1 / (2 * math.sqrt(chi_1 * chi_2)), math.sqrt(chi_1 / chi_2) / 2

    async def run(self, node: Node) -> None:
        """Take gradients, and keep the clocks of the edges to higher-numbered neighbours."""
        kept = node.restore()
        pair = Pair(node.model, *self.constants(node.graph))
        step = torch.zeros_like(node.model)
        if kept is not None:
            pair.twin, pair.t, step = kept["twin"], kept["t"], kept["step"]

        def offer(peer: int, seen: Point | None) -> Point:
            pair.advance(self._now(node))
            return Point(pair.x.clone())

        def commit(peer: int, mine: Point, theirs: Point) -> None:
            pair.advance(self._now(node))
            pair.gossip_event(mine.x, theirs.x)

        node.on_exchange(offer, commit)
        per_edge = self.rate * node.n / 2 / node.graph.edges
        async with node.tasks() as tasks:
            for peer in node.neighbors:
                if peer > node.id:
                    tasks.start(self._gossip(node, peer, per_edge))
            clock = PoissonClock(node, "gradient clock", 1 / self.unit)
            for _ in node.rounds():
                await clock.tick()
                pair.advance(self._now(node))
                step = self.momentum * step + await node.gradient(pair.x)
                pair.advance(self._now(node))
                pair.gradient_event(-self.lr * step)
                await node.report()
                await node.keep(twin=pair.twin, t=pair.t, step=step)

    def _now(self, node: Node) -> float:
        return node.clock.now_s / self.unit

    async def _gossip(self, node: Node, peer: int, rate: float) -> None:
        clock = PoissonClock(node, f"gossip clock {peer}", rate / self.unit)
        while True:
            await clock.tick()
            while peer not in node.suspected:
                if await node.exchange(peer) is Outcome.DELIVERED:
                    break
                await node.sleep(0.05 * self.unit * node.rng("retry").random())
