"""Federated learning with buffered asynchronous aggregation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tidings.api import GraphFacts, Message, protocols
from tidings.protocols.federated.async_server import Arrival, AsyncServer, Global, Server, Update


@protocols.register("fed_buff")
@dataclass(frozen=True, kw_only=True)
class FedBuff(AsyncServer):
    """FedBuff (Nguyen et al., AISTATS 2022, Algorithm 1).

    The server adds up ``buffer`` updates, from whomever they come, before it makes a step::

        x <- x + server_lr (1 / K) sum_k s(u_k) (x_k - x_sent),     s(u) = 1 / sqrt(1 + u)

    with K = ``buffer`` and u_k the aggregations since client k got its model. A client that is done
    frees a slot, which a random idle client takes at once with the current model; with a
    ``concurrency`` of 100 % that is itself. Fast clients count more often; ``unbiased`` replaces
    1 / K by p_k / freq_k, freq_k being the measured updates of k per aggregation (Fraboni et al.,
    JMLR 2023). ``discount: false`` sets s = 1.

    A round is one aggregation. A client that is silent for longer than the wait time-out is given
    the current model again; if all are, the server goes on with what the buffer holds.

    On the wire: x down, x_k - x_sent up. Cost per round: 2 K messages of d floats.
    """

    buffer: int = 10
    server_lr: float = 1.0
    discount: bool = True

    def __post_init__(self) -> None:
        """A buffer for at least one update."""
        super().__post_init__()
        if self.buffer < 1:
            raise ValueError(f"buffer must be at least 1, got {self.buffer}")
        if self.server_lr <= 0:
            raise ValueError(f"server_lr must be above zero, got {self.server_lr:g}")

    def traffic(self, graph: GraphFacts) -> dict[type[Message], float]:
        """Down and up for each update of a buffer."""
        return {Global: self.buffer, Update: self.buffer}

    async def collect(self, server: Server) -> Sequence[Arrival]:
        """Fill the buffer; a client whose update is in goes on at once."""
        arrivals: list[Arrival] = []
        while len(arrivals) < self.buffer and (arrival := await server.next()) is not None:
            arrivals.append(arrival)
            if len(arrivals) < self.buffer:
                server.hand_out()
        return arrivals

    def aggregate(self, x: torch.Tensor, arrivals: Sequence[Arrival], server: Server) -> None:
        """A step along the buffered changes."""
        for arrival in arrivals:
            weight = self.unbias(arrival, server) if self.unbiased else 1 / self.buffer
            if self.discount:
                weight /= math.sqrt(1 + arrival.staleness)
            x.add_(arrival.x, alpha=self.server_lr * weight)
