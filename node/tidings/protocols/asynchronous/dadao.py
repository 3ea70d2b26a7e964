"""DADAO: decoupled accelerated decentralized asynchronous optimization."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch

from tidings.api import (
    GraphFacts,
    LocalProblem,
    Message,
    Node,
    Outcome,
    Protocol,
    Vector,
    protocols,
)
from tidings.protocols.asynchronous.dadao_state import State, constants
from tidings.protocols.asynchronous.poisson import PoissonClock
from tidings.units import Duration


class At(Message):
    """A point in algorithm time."""

    t: float


class Dual(Message):
    """``Y + Z`` of a node, brought to time ``t``."""

    t: float
    m: Vector


@protocols.register("dadao")
@dataclass(frozen=True)
class DADAO(Protocol):
    """DADAO (Nabli & Oyallon, ICML 2023).

    Gradients (rate 1 per node) and gossips happen at the points of independent Poisson processes,
    in a time in which a node takes one gradient per ``unit`` on average. Edges have rates in fixed
    proportions (``rates``): the same for all (``uniform``), or the mixing weights (``weights``),
    which the mixing ``least_gossip`` makes the best there are. With chi_1 and chi_2 of the
    Laplacian of proportions p_e, edge e has the rate p_e sqrt(2 chi_1 chi_2), the least with which
    chi_1 chi_2 of the rates is 1/2. Between events six vectors follow a linear flow, applied just
    before the next event (constants as in the authors' code, nu = mu / 2). Converges linearly, with
    exponent of order sqrt(mu / L). Needs mu and L, by default the problem's own.

    A gossip is an atomic exchange at one common time: the starter's when it asks, or the answerer's
    if that is later. A time that is more than ``lead`` ahead of a node's own clock, or no number,
    is refused and counted, as is a vector with anything but numbers in it; that of a starter, whose
    own half stands when it comes, changes nothing. The lower-numbered end keeps an edge's clock.
    Invariant: at a common time the Z of all nodes sum to zero. On the wire: Y + Z and a time, once
    each way per gossip.
    """

    unit: Duration = Duration(0.1)
    mu: float | None = None
    smoothness: float | None = None
    lead: Duration = Duration(10.0)
    rates: Literal["uniform", "weights"] = "uniform"

    messages = (Dual, At)
    asks_with = At
    static_graph = True
    two_way_links = True

    def __post_init__(self) -> None:
        for name in ("unit", "mu", "smoothness", "lead"):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise ValueError(f"{name} must be above zero, got {value}")

    def check_problem(self, problem: LocalProblem) -> None:
        """Both constants must be given or known."""
        constants("dadao", problem, self.mu, self.smoothness)

    def check(self, in_degrees: tuple[int, ...], graph: GraphFacts) -> None:
        """Weights that are to be rates must be the same both ways, and connect the graph."""
        if self.rates == "weights" and not math.isfinite(graph.weights_chi[0]):
            raise ValueError(
                "dadao with rates: weights needs symmetric mixing weights that connect the graph, "
                "such as least_gossip"
            )

    def traffic(self, graph: GraphFacts) -> dict[type[Message], float]:
        """A message each way per gossip, over the time in which nodes take one step."""
        chi_1, chi_2 = graph.chi_1, graph.chi_2
        total = 1.0
        if self.rates == "weights":
            (chi_1, chi_2), total = graph.weights_chi, graph.weights_total
        return {Dual: 2 * total * math.sqrt(2 * chi_1 * chi_2)}

    async def run(self, node: Node) -> None:
        """Keep the gradient clock and those of the edges to higher-numbered neighbours."""
        mu, smoothness = constants("dadao", node.problem, self.mu, self.smoothness)
        chi_1, rates = self._rates(node)
        kept = node.restore()
        state = State(node.model, mu, smoothness, chi_1)
        if kept is not None:
            state.rows, state.t = kept["rows"], kept["t"]

        def offer(peer: int, seen: At | Dual) -> Dual | None:
            if isinstance(seen, Dual) and not torch.isfinite(seen.m).all():
                return None
            # not so for nan
            if not 0 <= seen.t <= self._now(node) + self.lead / self.unit:
                return None
            state.advance(seen.t)
            return Dual(state.t, (state.rows[2] + state.rows[4]).float())

        def commit(peer: int, mine: Dual, theirs: Dual) -> None:
            # the starter's half stands, whatever it has sent
            if torch.isfinite(theirs.m).all():
                state.gossip_event(mine.m, theirs.m)

        node.on_exchange(offer, commit)
        async with node.tasks() as tasks:
            for peer in node.neighbors:
                # an edge may have no rate
                if peer > node.id and rates[peer] > 0:
                    tasks.start(self._gossip(node, state, peer, rates[peer]))
            clock = PoissonClock(node, "gradient clock", 1 / self.unit)
            for _ in node.rounds():
                await clock.tick()
                await self._step(node, state)
                await node.report()
                await node.keep(rows=state.rows, t=state.t)

    def _rates(self, node: Node) -> tuple[float, dict[int, float]]:
        """chi_1 of the gossip per unit of time, and the rate of the edge to each neighbour."""
        uniform = self.rates == "uniform"
        graph = node.graph
        chi_1, chi_2 = (graph.chi_1, graph.chi_2) if uniform else graph.weights_chi
        scale = math.sqrt(2 * chi_1 * chi_2)
        parts = {k: 1 / graph.edges if uniform else node.weight(k) for k in node.neighbors}
        return chi_1 / scale, {k: scale * part for k, part in parts.items()}

    def _now(self, node: Node) -> float:
        return node.clock.now_s / self.unit

    async def _step(self, node: Node, state: State) -> None:
        async with node.exclusive():
            state.advance(self._now(node))
            x = state.rows[0].clone()
        gradient = await node.gradient(x.float())
        async with node.exclusive():
            state.advance(self._now(node))
            state.gradient_event(x, gradient.double())
            node.model = state.rows[0].float()

    async def _gossip(self, node: Node, state: State, peer: int, rate: float) -> None:
        clock = PoissonClock(node, f"gossip clock {peer}", rate / self.unit)

        def ask() -> At:
            return At(max(self._now(node), state.t))

        while True:
            await clock.tick()
            while await node.exchange(peer, ask) is not Outcome.DELIVERED:
                await node.sleep(0.05 * self.unit * node.rng("retry").random())
