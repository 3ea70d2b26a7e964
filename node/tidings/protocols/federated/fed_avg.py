"""Federated averaging."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tidings.api import GraphFacts, Message, Node, Protocol, Vector, protocols
from tidings.protocols.federated.star import check_hub, check_training, sgd
from tidings.units import Ratio


class Global(Message):
    """The server's model; the last one closes the run."""

    x: Vector
    last: bool

    sender = "server"


class Update(Message):
    """A client's model after its local steps, and the samples that it stands for."""

    x: Vector
    samples: int

    sender = "client"


@protocols.register("fed_avg")
@dataclass(frozen=True)
class FedAvg(Protocol):
    """Federated averaging (McMahan et al., AISTATS 2017, Algorithm 1).

    The hub of a star is the server. Each round it draws a fraction of the clients, sends them its
    model, and averages what they make of it in ``local_steps`` SGD steps::

        w <- sum_k (n_k / n) w_k,      w_k = w after local steps on client k's n_k samples

    A client that is not heard before the deadline is left out of the average.

    On the wire: w down, w_k up. Cost per round: 2 m messages of d floats for m clients drawn.
    """

    lr: float
    local_steps: int = 5
    participation: Ratio = Ratio(1.0)

    messages = (Global, Update)
    ends_with = "server"
    synchronous = True

    def __post_init__(self) -> None:
        """At least one step of at least one client."""
        super().__post_init__()
        check_training(self.local_steps, self.participation, "participation")

    def check(self, in_degrees: tuple[int, ...], graph: GraphFacts) -> None:
        """The server must reach every client."""
        check_hub(self.kind, in_degrees)

    def traffic(self, graph: GraphFacts) -> dict[type[Message], float]:
        """Down to and up from every client that is drawn."""
        drawn = max(1, math.ceil(self.participation * (graph.nodes - 1)))
        return {Global: drawn, Update: drawn}

    async def run(self, node: Node) -> None:
        """Serve or train, by role."""
        node.restore()
        await (self._serve(node) if node.id == 0 else self._train(node))

    async def _serve(self, node: Node) -> None:
        drawn = max(1, math.ceil(self.participation * len(node.neighbors)))
        for _ in node.rounds():
            clients = node.rng("clients").choice(node.neighbors, drawn, replace=False)
            chosen = node.cohort = tuple(sorted(map(int, clients)))
            await node.send_all({k: Global(node.model, False) for k in chosen})
            inbox = await node.gather(Update, of=chosen)
            total = sum(update.samples for update in inbox.values())
            if total:
                shares = (update.x * (update.samples / total) for update in inbox.values())
                node.model = sum(shares, start=node.model * 0.0)
            await node.report()
            await node.keep()
        await node.send_all(node.to_neighbors(Global(node.model, True)))

    async def _train(self, node: Node) -> None:
        async for order in node.messages(Global):
            last = order.message.last
            await node.catch_up(order.round + last)
            x = node.model = order.message.x
            if last:
                return
            x = await sgd(node, x, self.lr, self.local_steps)
            await node.send(order.source, Update(x, node.problem.samples))
            await node.report()
            await node.keep()
