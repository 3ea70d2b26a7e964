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
from tidings.protocols.asynchronous.dadao_state import State
from tidings.protocols.asynchronous.poisson import ChangingPoissonClock, PoissonClock
from tidings.protocols.convexity import constants
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

    The graph may change, as long as every single one is connected: chi_1 and chi_2 are then the
    largest of all of them, as in the authors' code, and the speed is the same. p_e is the same for
    every edge of every graph (their code keeps the number of gossips per unit the same instead). A
    ``sequence`` changes every so many units, by the clock and not by a node's own steps;
    ``graph.rewire`` with a node's next step. A gossip that is due when its edge, or
    the node at its end, has gone is left out.

    The rates are a condition, not a wish: where exchanges cannot keep up with their clocks (three
    trips over a link each, and a node is in one at a time), it diverges. A ring of 8 with a unit of
    60 ms goes well with links of 2 ms and not with 20 ms; a longer ``unit`` helps.

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
    two_way_links = True

    def __post_init__(self) -> None:
        for name in ("unit", "mu", "smoothness", "lead"):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise ValueError(f"{name} must be above zero, got {value}")

    def check_problem(self, problem: LocalProblem) -> None:
        """Both constants must be given or known."""
        constants("dadao", problem, self.mu, self.smoothness)

    def check(self, in_degrees: tuple[int, ...], graph: GraphFacts) -> None:
        """Weights that are to be rates must be the same both ways, and connect every graph."""
        chi = self._chi(graph)
        if self.rates == "weights" and not math.isfinite(chi[0]):
            raise ValueError(
                "dadao with rates: weights needs symmetric mixing weights that connect the graph, "
                "such as least_gossip"
            )
        if math.isinf(chi[0]):
            raise ValueError(
                "dadao needs graphs that are each connected: its gossips are as frequent as the "
                "worst of them asks for"
            )

    def _chi(self, graph: GraphFacts) -> tuple[float, float]:
        return graph.worst_chi if self.rates == "uniform" else graph.weights_chi

    def traffic(self, graph: GraphFacts) -> dict[type[Message], float]:
        """A message each way per gossip, over the time in which nodes take one step."""
        per_unit = graph.weights_total
        if self.rates == "uniform":
            per_unit = graph.arcs / 2 / graph.edges
        return {Dual: 2 * per_unit * math.sqrt(2 * math.prod(self._chi(graph)))}

    async def run(self, node: Node) -> None:
        """Keep the gradient clock and those of the edges to higher-numbered neighbours."""
        mu, smoothness = constants("dadao", node.problem, self.mu, self.smoothness)
        chi_1, chi_2 = self._chi(node.graph)
        # gossips per unit of time, where the proportions of the edges add up to 1
        pace = math.sqrt(2 * chi_1 * chi_2)
        kept = node.restore()
        state = State(node.model, mu, smoothness, chi_1 / pace)
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
            for peer in node.all_neighbors:
                if peer > node.id:
                    tasks.start(self._gossip(node, state, peer, pace))
            clock = PoissonClock(node, "gradient clock", 1 / self.unit)
            for _ in node.rounds():
                await clock.tick()
                await self._step(node, state)
                await node.report()
                await node.keep(rows=state.rows, t=state.t)

    def _rate(self, node: Node, peer: int, unit: int) -> float:
        """The proportion of the edge to ``peer`` in a unit of time; 0 where there is none then."""
        weights = node.weights_in(unit)
        if self.rates == "weights":
            return weights.get(peer, 0.0)
        return 1 / node.graph.edges if peer in weights else 0.0

    def _in_place(self, node: Node, peer: int) -> bool:
        """Whether a gossip that is due can be had: not where its edge or the peer has gone."""
        unit = math.floor(self._now(node))
        return peer not in node.suspected and self._rate(node, peer, unit) > 0

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

    async def _gossip(self, node: Node, state: State, peer: int, pace: float) -> None:
        clock = self._clock(node, peer, pace)

        def ask() -> At:
            return At(max(self._now(node), state.t))

        if clock is None:
            return
        while True:
            await clock.tick()
            while self._in_place(node, peer):
                if await node.exchange(peer, ask) is Outcome.DELIVERED:
                    break
                await node.sleep(0.05 * self.unit * node.rng("retry").random())

    def _clock(
        self, node: Node, peer: int, pace: float
    ) -> PoissonClock | ChangingPoissonClock | None:
        """None where an edge has no rate."""
        purpose, pace_hz = f"gossip clock {peer}", pace / self.unit
        if not node.graph.static:
            return ChangingPoissonClock(
                node, purpose, lambda unit: pace_hz * self._rate(node, peer, unit), self.unit
            )
        rate = self._rate(node, peer, 0)
        return PoissonClock(node, purpose, pace_hz * rate) if rate else None
