"""Asynchronous federated optimization: every update is mixed in as it comes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from tidings.api import GraphFacts, Message, Node, protocols
from tidings.protocols.federated.async_server import Arrival, AsyncServer, Global, Server, Update
from tidings.protocols.federated.star import sgd


@protocols.register("fed_async")
@dataclass(frozen=True, kw_only=True)
class FedAsync(AsyncServer):
    """FedAsync (Xie, Koyejo & Gupta, 2019, Algorithm 1).

    The server mixes every model that comes into its own, the less the staler it is, and gives the
    result to the client at once::

        x <- (1 - a_u) x + a_u x_k,     a_u = alpha s(u),     u = aggregations since k got its model
        s(u) = 1   |   (1 + u)^-exponent   |   1 for u <= hinge_after, else 1 / (hinge_slope
               (u - hinge_after) + 1)

    x_k is the result of ``local_steps`` SGD steps on f_k + rho/2 |. - x_sent|^2. A fast client is
    mixed in more often: it settles at the minimum of sum_k q_k f_k, q_k ~ a_k / ((1 - a_k) tau_k)
    for clients that take tau_k, not of the average (1 / tau_k: Fraboni et al., JMLR 2023, table 1;
    the rest derived in tests/oracle/test_async_server.py). ``unbiased`` multiplies a_u by
    p_k / freq_k (at most to 1), from measured frequencies, which for small alpha takes the bias
    away.

    A round is one aggregation. ``concurrency`` is the part of the clients that train at a time.
    A client that is silent for longer than the wait time-out is given the current model again.

    On the wire: x down, x_k up. Cost per round: two messages of d floats.
    """

    alpha: float = 0.6
    rho: float = 0.0
    staleness: Literal["constant", "polynomial", "hinge"] = "polynomial"
    exponent: float = 0.5
    hinge_slope: float = 10.0
    hinge_after: int = 4

    def __post_init__(self) -> None:
        """Mixing weights between 0 and 1."""
        super().__post_init__()
        if not 0 < self.alpha <= 1:
            raise ValueError(f"alpha must be above 0 and at most 1, got {self.alpha:g}")
        for name in ("rho", "exponent", "hinge_slope", "hinge_after"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name):g}")

    def traffic(self, graph: GraphFacts) -> dict[type[Message], float]:
        """One client's way down and up."""
        return {Global: 1, Update: 1}

    def discount(self, staleness: int) -> float:
        """``s(u)``."""
        if self.staleness == "polynomial":
            return float((1 + staleness) ** -self.exponent)
        if self.staleness == "hinge" and staleness > self.hinge_after:
            return 1 / (self.hinge_slope * (staleness - self.hinge_after) + 1)
        return 1.0

    async def train(self, x: torch.Tensor, node: Node) -> torch.Tensor:
        """A client sends its model."""
        return await sgd(node, x, self.lr, self.local_steps, self.rho)

    async def collect(self, server: Server) -> Sequence[Arrival]:
        """The next update."""
        arrival = await server.next()
        return [] if arrival is None else [arrival]

    def aggregate(self, x: torch.Tensor, arrivals: Sequence[Arrival], server: Server) -> None:
        """Mix in."""
        for arrival in arrivals:
            weight = self.alpha * self.discount(arrival.staleness) * self.unbias(arrival, server)
            x.lerp_(arrival.x, min(1.0, weight))
