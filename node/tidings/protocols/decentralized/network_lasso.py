"""Network Lasso: models that agree with those of most neighbours, by ADMM."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tidings.api import LocalProblem, Node, Protocol, Weights, protocols


@dataclass
class Edge:
    """One end of an edge, (d,) float64 each: the copy of the own model, and the scaled dual."""

    z: torch.Tensor
    u: torch.Tensor


@protocols.register("network_lasso")
@dataclass(frozen=True, kw_only=True)
class NetworkLasso(Protocol):
    """Network Lasso (Hallac, Leskovec & Boyd, KDD 2015, Algorithm 1): ADMM over the graph.

    Every node has a model of its own; neighbours are drawn together by the norm of their
    difference, not its square, so that most are equal and some may differ as much as they like::

        min  sum_i f_i(x_i) + penalty sum_{(j,k) in E} |x_j - x_k|_2

        x_j  = argmin f_j(x) + rho/2 sum_k |x - z_jk + u_jk|^2
        a, b = x_j + u_jk, x_k + u_kj;   theta = max(1 - penalty / (rho |a - b|), 1/2)
        z_jk = theta a + (1 - theta) b,                   z_kj by the other end
        u_jk <- u_jk + x_j - z_jk

    With penalty 0 everyone learns alone; with a large one all agree on the minimiser of the sum.
    Needs a problem with a minimiser (``LocalProblem.minimizer``). Each round reports ``residual``,
    the norm of x_j - z_jk over the node's edges.

    On the wire: x_j + u_jk, for each neighbour its own. Cost per round and node: deg(i) messages
    of d floats. A neighbour's message that does not come leaves the edge as it was. ADMM comes to
    the same point from anything that the ends of an edge have, so neither a lost message nor a node
    that comes back with an old z and u, or with none, moves the limit.
    """

    #: weight of the edges, lambda
    penalty: float
    rho: float = 1.0

    synchronous = True
    static_graph = True
    two_way_links = True

    def __post_init__(self) -> None:
        """ValueError for a negative penalty and a rho that is not above zero."""
        super().__post_init__()
        if not self.penalty >= 0:
            raise ValueError(f"penalty must not be negative, got {self.penalty:g}")
        if not self.rho > 0:
            raise ValueError(f"rho must be above zero, got {self.rho:g}")

    def check_problem(self, problem: LocalProblem) -> None:
        """Its proximal point must be known."""
        if not problem.has_minimizer:
            raise ValueError(
                "network_lasso needs the minimiser of the local objective with a quadratic, which "
                "this problem does not know"
            )

    async def run(self, node: Node) -> None:
        """The iterations; both ends of an edge do the same arithmetic."""
        kept = node.restore()
        x = node.initial().double()
        edges = {k: Edge(x, torch.zeros_like(x)) for k in node.neighbors}
        if kept is not None:
            edges = {k: Edge(*kept["edges"][k]) for k in node.neighbors}
        edges = await node.rejoin(edges, self)
        for _ in node.rounds():
            edges = await node.welcome(edges, self)
            pull = sum((edge.z - edge.u for edge in edges.values()), torch.zeros_like(x))
            x = await node.minimizer(self.rho * pull, self.rho * len(edges))
            own = {k: (x + edge.u).float() for k, edge in edges.items()}
            await node.send_all({k: Weights(a) for k, a in own.items()})
            for k, message in (await node.gather(Weights)).items():
                z = self._meet(own[k].double(), message.x.double())
                edges[k] = Edge(z, edges[k].u + x - z)
            node.model = x.float()
            apart = [float((x - edge.z).norm()) for edge in edges.values()]
            await node.report(residual=sum(d * d for d in apart) ** 0.5)
            await node.keep(edges={k: (edge.z, edge.u) for k, edge in edges.items()})

    def _meet(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Where ``a`` goes: towards ``b``, at most half way."""
        apart = float((a - b).norm())
        moved = min(self.penalty / (self.rho * apart), 0.5) if apart > 0 else 0.0
        return a + moved * (b - a)
