"""Decentralized SGD that aggregates its neighbourhood robustly."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from tidings.api import (
    Aggregator,
    GraphFacts,
    Inbox,
    LocalProblem,
    Node,
    Outgoing,
    Rounds,
    Weights,
    protocols,
)


@protocols.register("robust_d_psgd")
@dataclass(frozen=True)
class RobustDPSGD(Rounds):
    """D-PSGD with a robust rule in place of the weighted mean, as BRIDGE (Fang, Yang & Bajwa 2022).

    ::

        x_i <- F(x_j - lr g_j(x_j) : j in N_i and i)

    F sees the rows unweighted, the own one first. With ``mean`` on a regular graph it is D-PSGD
    with uniform weights. The rule's f counts bad rows per neighbourhood, own row included, and
    every neighbourhood must be large enough for it; this is checked before the run.

    On the wire: x. Cost per round and node: deg(i) messages of d floats, one F on deg(i)+1 rows.
    """

    lr: float
    aggregator: Aggregator = field(default_factory=lambda: Aggregator.parse("median"))

    def check(self, in_degrees: tuple[int, ...], graph: GraphFacts) -> None:
        """Every neighbourhood must have the rows that the rule needs."""
        for node, degree in enumerate(in_degrees):
            try:
                self.aggregator.check(degree + 1)
            except ValueError as error:
                raise ValueError(f"at node {node}, itself included: {error}") from error

    def check_problem(self, problem: LocalProblem) -> None:
        """What the rule needs of it."""
        self.aggregator.check_problem(problem)

    def send(self, x: torch.Tensor, gradient: torch.Tensor, node: Node) -> tuple[object, Outgoing]:
        """A step along the own gradient."""
        x = x - self.lr * gradient
        return x, node.to_neighbors(Weights(x))

    def receive(self, x: torch.Tensor, inbox: Inbox[Weights], node: Node) -> torch.Tensor:
        """Combine own and received models."""
        rows = torch.stack([x, *(message.x for message in inbox.values())])
        return node.aggregate(self.aggregator, rows)
