"""MSDA: accelerated gradient on the dual, with accelerated gossip inside of every step."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from tidings.api import GraphFacts, LocalProblem, Message, Node, Protocol, Vector, protocols
from tidings.protocols.convexity import constants


class Gossip(Message):
    """A vector to be averaged, by a node whose duals began in round ``since``."""

    v: Vector
    since: int


@dataclass
class State:
    """Duals, (d,) float64 each."""

    x: torch.Tensor
    y: torch.Tensor
    #: the round in which they began at zero
    since: int = 0
    #: the latest such round of any node that was heard of
    latest: int = 0


@protocols.register("msda")
@dataclass(frozen=True, kw_only=True)
class MSDA(Protocol):
    """MSDA, the multi-step dual accelerated method (Scaman et al., ICML 2017, Algorithm 2).

    With the Laplacian L of the graph, its eigengap g = lambda_2 / lambda_max, K = floor(g^-1/2),
    c = ((1 - sqrt(g)) / (1 + sqrt(g)))^K and kappa = smoothness / mu::

        theta_i = argmin f_i(x) - <x_i, x>                               the model
        y_i(t+1) = x_i(t) - mu (1 + c^2) / (1 + c)^2 [P(L) theta]_i
        x_i(t+1) = y_i(t+1) + m (y_i(t+1) - y_i(t)),
        m = ((1 + c) sqrt(kappa) - 1 + c) / ((1 + c) sqrt(kappa) + 1 - c)

    P(L) = I - T_K(c_2 (I - c_3 L)) / T_K(c_2), a Chebyshev polynomial of degree K that takes the
    mean away and keeps nearly all else: K gossips in which every node hears every neighbour. The
    error falls like (1 - 1 / sqrt(kappa))^t, whatever the graph, which K pays for. The duals sum to
    zero. Optimal among synchronous methods, and waits for the slowest node K times a round.

    mu and smoothness are those of every f_i, by default the problem's own; needs its minimiser
    (``LocalProblem.minimizer``). A lost message moves the sum of the duals, and with it the limit,
    for good. So would a node that comes back with duals of an earlier round: when it is back, it
    and its neighbours begin anew with duals of zero, each message says since when its sender's
    duals are, whoever hears of a later beginning begins anew in the next round, and until then
    vectors of different beginnings do not meet. So the sum is zero again, and the limit exact.

    On the wire: d floats. Cost per round: K messages per neighbour, one minimisation.
    """

    mu: float | None = None
    smoothness: float | None = None

    messages = (Gossip,)
    synchronous = True
    static_graph = True
    two_way_links = True

    def __post_init__(self) -> None:
        """ValueError for constants that are not above zero."""
        super().__post_init__()
        for name in ("mu", "smoothness"):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise ValueError(f"{name} must be above zero, got {value:g}")

    def check_problem(self, problem: LocalProblem) -> None:
        """Both constants must be given or known, and the minimiser."""
        constants("msda", problem, self.mu, self.smoothness)
        if not problem.has_minimizer:
            raise ValueError(
                "msda needs the minimiser of the local objective with a linear term, which this "
                "problem does not know"
            )

    def traffic(self, graph: GraphFacts) -> dict[type[Message], float]:
        """K messages on every arc."""
        return {Gossip: gossips(graph) * graph.arcs}

    async def run(self, node: Node) -> None:
        """The rounds."""
        mu, smoothness = constants("msda", node.problem, self.mu, self.smoothness)
        root, c = math.sqrt(smoothness / mu), _decay(node.graph)
        step = mu * (1 + c**2) / (1 + c) ** 2
        momentum = ((1 + c) * root - 1 + c) / ((1 + c) * root + 1 - c)
        kept = node.restore()
        zero = torch.zeros_like(node.initial(), dtype=torch.float64)
        state = State(zero, zero) if kept is None else kept["state"]
        state = await node.rejoin(state, self)
        for _ in node.rounds():
            state = await node.welcome(state, self)
            theta = await node.minimizer(state.x)
            y = state.x - step * await self._gossip(theta, state, node)
            state.x, state.y = y + momentum * (y - state.y), y
            if state.latest > state.since:
                state = State(zero, zero, state.latest, state.latest)
            node.model = theta.float()
            await node.report()
            await node.keep(state=state)

    def resync(self, state: State, peer: int, message: None, node: Node) -> State:
        """Duals of an earlier round do not go with the others': begin anew with this round."""
        zero = torch.zeros_like(state.x)
        return State(zero, zero, node.round, node.round)

    async def _gossip(self, theta: torch.Tensor, state: State, node: Node) -> torch.Tensor:
        """P(L) theta by the recursion of Chebyshev polynomials, divided by their values at c_2."""
        gap = node.graph.eigengap
        c_3 = 2 * gap * node.graph.chi_1 / node.graph.edges / (1 + gap)
        before, v = theta, theta - c_3 * await self._laplacian(theta, state, node)
        # not needed for K = 1, as on a complete graph, where it would be infinite
        c_2 = (1 + gap) / (1 - gap) if gossips(node.graph) > 1 else math.nan
        a_before, a = 1.0, c_2
        for step in range(1, gossips(node.graph)):
            node.step = step
            a_next = 2 * c_2 * a - a_before
            moved = v - c_3 * await self._laplacian(v, state, node)
            before, v = v, (2 * c_2 * a * moved - a_before * before) / a_next
            a_before, a = a, a_next
        return theta - v

    async def _laplacian(self, v: torch.Tensor, state: State, node: Node) -> torch.Tensor:
        """sum_k (v - v_k), rounded on both ends alike, so that it sums to zero over the nodes."""
        sent = v.float()
        await node.send_all(node.to_neighbors(Gossip(sent, state.since)))
        inbox = await node.gather(Gossip)
        state.latest = max([state.latest, *(message.since for message in inbox.values())])
        peers = (message for message in inbox.values() if message.since == state.since)
        terms = (sent.double() - message.v.double() for message in peers)
        return sum(terms, torch.zeros_like(v))


def gossips(graph: GraphFacts) -> int:
    """K = floor(1 / sqrt(eigengap))."""
    return math.floor(1 / math.sqrt(graph.eigengap) + 1e-9)


def _decay(graph: GraphFacts) -> float:
    """c = c_1^K."""
    root = math.sqrt(graph.eigengap)
    return float(((1 - root) / (1 + root)) ** gossips(graph))
