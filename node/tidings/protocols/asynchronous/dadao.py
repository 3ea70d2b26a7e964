"""DADAO: decoupled accelerated decentralized asynchronous optimization."""

from __future__ import annotations

import math
from dataclasses import dataclass

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
    """DADAO (Nabli & Oyallon, ICML 2023) with the same rate on every edge.

    Gradients (rate 1 per node) and gossips (in all sqrt(2 chi_1 chi_2) over the graph) happen at
    the points of independent Poisson processes, in a time in which a node takes one gradient per
    ``unit`` on average. Between events six vectors follow a linear flow, applied just before the
    next event (constants as in the authors' code, nu = mu / 2). Converges linearly, with exponent
    of order sqrt(mu / L). Needs mu and L, by default the problem's own.

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
        constants(problem, self.mu, self.smoothness)

    def traffic(self, graph: GraphFacts) -> dict[type[Message], float]:
        """A message each way per gossip, sqrt(2 chi_1 chi_2) gossips while nodes take one step."""
        return {Dual: 2 * math.sqrt(2 * graph.chi_1 * graph.chi_2)}

    async def run(self, node: Node) -> None:
        """Keep the gradient clock and those of the edges to higher-numbered neighbours."""
        mu, smoothness = constants(node.problem, self.mu, self.smoothness)
        rate = math.sqrt(2 * node.graph.chi_1 * node.graph.chi_2)
        kept = node.restore()
        state = State(node.model, mu, smoothness, node.graph.chi_1 / rate)
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
                if peer > node.id:
                    tasks.start(self._gossip(node, state, peer, rate / node.graph.edges))
            clock = PoissonClock(node, "gradient clock", 1 / self.unit)
            for _ in node.rounds():
                await clock.tick()
                await self._step(node, state)
                await node.report()
                await node.keep(rows=state.rows, t=state.t)

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
