"""Federated learning with aggregation at fixed times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tidings.api import GraphFacts, Message, protocols
from tidings.protocols.federated.async_server import Arrival, AsyncServer, Global, Server, Update
from tidings.units import Duration


@protocols.register("fed_fix")
@dataclass(frozen=True, kw_only=True)
class FedFix(AsyncServer):
    """FedFix (Fraboni et al., JMLR 2023, section 5).

    The server aggregates every ``window`` of emulated time what has come by then, and gives the
    result to those it came from; later clients go on with their old model::

        x <- x + server_lr sum_k d_k (x_k - x_sent)      over the clients of the window

    A client that takes tau_k is in every ceil(tau_k / window)-th aggregation, so d_k = p_k
    ceil(tau_k / window) weighs all as synchronous averaging does; the factor is measured, as the
    mean number of windows between two updates of k. ``unbiased: false`` sets d_k = p_k, which ends
    at the minimum of sum_k p_k / ceil(tau_k / window) f_k instead. With a window as long as the
    slowest client takes it is FedAvg.

    A round is one window. A client that is silent for longer than the wait time-out is given the
    current model again.

    On the wire: x down, x_k - x_sent up. Cost per round: 2 m messages of d floats for the m clients
    that are in time.
    """

    window: Duration = Duration(1.0)
    server_lr: float = 1.0
    unbiased: bool = True

    def __post_init__(self) -> None:
        """A window that has a length."""
        super().__post_init__()
        for name in ("window", "server_lr"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above zero, got {getattr(self, name)}")

    def traffic(self, graph: GraphFacts) -> dict[type[Message], float]:
        """At most: every client in every window."""
        clients = graph.nodes - 1
        return {Global: clients, Update: clients}

    async def collect(self, server: Server) -> Sequence[Arrival]:
        """What comes until the end of the window."""
        node = server.node
        arrivals: list[Arrival] = []
        ends_s = self.window * (node.round + 1)
        while True:
            arrival = await server.next(max(0.0, ends_s - node.clock.now_s))
            if arrival is None:
                return arrivals
            arrivals.append(arrival)

    def aggregate(self, x: torch.Tensor, arrivals: Sequence[Arrival], server: Server) -> None:
        """A step along the changes of the window."""
        for arrival in arrivals:
            weight = self.unbias(arrival, server) if self.unbiased else server.share(arrival.client)
            x.add_(arrival.x, alpha=self.server_lr * weight)
