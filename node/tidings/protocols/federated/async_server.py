"""A server that waits for nobody: what the asynchronous federated protocols have in common.

Every client trains on the model it was given last, however old, and says when it is done. The
protocols differ in when the server aggregates, in the weights, and in whether clients send their
model or its change.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tidings.api import GraphFacts, Message, Node, Protocol, Tasks, Vector
from tidings.protocols.federated.star import check_hub, check_training, sgd
from tidings.units import Ratio


class Global(Message):
    """The server's model after ``version`` aggregations; the last one closes the run."""

    x: Vector
    version: int
    last: bool

    sender = "server"


class Update(Message):
    """What a client made of a version, and the samples that it stands for."""

    x: Vector
    version: int
    samples: int

    sender = "client"


@dataclass(frozen=True)
class Arrival:
    """An update at the server."""

    client: int
    #: (d,) float32, the client's model or its change
    x: torch.Tensor
    #: aggregations since the version that the client started from
    staleness: int


@dataclass(frozen=True, kw_only=True)
class AsyncServer(Protocol):
    """Base of protocols whose server aggregates without waiting for all clients."""

    lr: float
    local_steps: int = 5
    concurrency: Ratio = Ratio(1.0)
    unbiased: bool = False

    messages = (Global, Update)
    ends_with = "server"

    def __post_init__(self) -> None:
        """At least one step of at least one client."""
        super().__post_init__()
        check_training(self.local_steps, self.concurrency, "concurrency")

    def check(self, in_degrees: tuple[int, ...], graph: GraphFacts) -> None:
        """The server must reach every client."""
        check_hub(self.kind, in_degrees)

    async def train(self, x: torch.Tensor, node: Node) -> torch.Tensor:
        """What a client sends for ``x`` ((d,) float32): the change of its local steps."""
        return await sgd(node, x, self.lr, self.local_steps) - x

    @abstractmethod
    async def collect(self, server: Server) -> Sequence[Arrival]:
        """Wait until it is time to aggregate; what has arrived by then, in order of arrival.

        Empty where a whole wait time-out passed in silence.
        """

    @abstractmethod
    def aggregate(self, x: torch.Tensor, arrivals: Sequence[Arrival], server: Server) -> None:
        """Change the server's model ``x`` ((d,) float32) in place."""

    def unbias(self, arrival: Arrival, server: Server) -> float:
        """``p_i / freq_i`` where weights are to be unbiased, else 1; see :class:`Server`."""
        if not self.unbiased:
            return 1.0
        return server.share(arrival.client) / server.frequency(arrival.client)

    async def run(self, node: Node) -> None:
        """Serve or train, by role."""
        await (self._serve(node) if node.id == 0 else self._train(node))

    async def _serve(self, node: Node) -> None:
        async with node.tasks() as tasks:
            server = Server(node, tasks, math.ceil(self.concurrency * len(node.neighbors)))
            for _ in node.rounds():
                server.hand_out()
                arrivals = await self.collect(server)
                server.count(arrivals)
                x = node.model.clone()
                self.aggregate(x, arrivals, server)
                node.model = x
                stale = sum(arrival.staleness for arrival in arrivals) / max(1, len(arrivals))
                await node.report(staleness=stale, updates=len(arrivals))
        await node.send_all(node.to_neighbors(Global(node.model, node.round + 1, True)))

    async def _train(self, node: Node) -> None:
        reported = -1
        async for delivery in node.messages(Global):
            order = delivery.message
            while (newer := await node.recv(Global, within_s=0.0)) is not None:
                order = newer.message
            await node.catch_up(order.version)
            node.model = order.x
            if order.last:
                return
            x = await self.train(order.x, node)
            await node.send(delivery.source, Update(x, order.version, node.problem.samples))
            if order.version > reported:
                reported = order.version
                await node.report()


class Server:
    """The server's books: who is training, and how often each client was aggregated.

    With ``freq_i`` the number of updates of client i per aggregation so far, and ``p_i`` its share
    of all samples, updates weighted by p_i / freq_i have the same weight in the long run as in
    synchronous averaging (Fraboni et al., JMLR 2023: E[omega_i] proportional to p_i).
    """

    def __init__(self, node: Node, tasks: Tasks, slots: int) -> None:
        self.node = node
        self._tasks = tasks
        self._slots = slots
        #: clients that train: the version they were given, and when
        self._given: dict[int, tuple[int, float]] = {}
        self._samples: dict[int, int] = {}
        self._updates: dict[int, int] = {}

    def hand_out(self) -> None:
        """Give the current model to idle clients, drawn at random, until all slots are taken.

        Clients that were silent for longer than the wait time-out are given it too, for a message
        may have been lost. A slow link to one of them keeps nobody waiting.
        """
        node, now_s = self.node, self.node.clock.now_s
        idle = [k for k in node.neighbors if k not in self._given]
        free = min(len(idle), self._slots - len(self._given))
        silent = [k for k, (_, since_s) in self._given.items() if now_s > since_s + node.wait_s]
        drawn = node.rng("clients").choice(idle, free, replace=False) if free > 0 else ()
        for k in sorted([*map(int, drawn), *silent]):
            self._given[k] = node.round, now_s
            self._tasks.start(node.send(k, Global(node.model, node.round, False)))

    async def next(self, within_s: float | None = None) -> Arrival | None:
        """The next update; None at the deadline (by default after the wait time-out)."""
        delivery = await self.node.recv(Update, within_s)
        if delivery is None:
            return None
        client, update = delivery.source, delivery.message
        if client in self._given and update.version >= self._given[client][0]:
            del self._given[client]
        self._samples[client] = max(1, update.samples)
        return Arrival(client, update.x, max(0, self.node.round - update.version))

    def count(self, arrivals: Sequence[Arrival]) -> None:
        """Book what is aggregated now."""
        for arrival in arrivals:
            self._updates[arrival.client] = self._updates.get(arrival.client, 0) + 1

    def share(self, client: int) -> float:
        """``p_i``; clients not heard yet are taken to have as many samples as the others."""
        mean = sum(self._samples.values()) / len(self._samples)
        return self._samples[client] / mean / len(self.node.neighbors)

    def frequency(self, client: int) -> float:
        """``freq_i``, the present aggregation included."""
        return self._updates[client] / (self.node.round + 1)
