"""Workers that send compressed vectors to a server: what EC, EControl and EF21 have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from tidings.api import Compressed, GraphFacts, Message, Node, Protocol, Vector

ErrorAndShift = tuple[torch.Tensor, torch.Tensor]


class Model(Message):
    """The server's model after a round."""

    x: Vector

    sender = "server"


class Update(Message):
    """What a worker compressed."""

    q: Compressed

    sender = "client"


class First(Message):
    """A worker's first gradient, uncompressed."""

    g: Vector

    sender = "client"


class Standing(Message):
    """Where its sender stands, after so many ``rounds``: for a worker or a server that comes back.

    The model, and the worker's h_i, as it has it itself or as the server has counted it.
    """

    x: Vector
    h: Vector
    rounds: int


@dataclass
class State:
    """What a node has between two rounds."""

    #: the model, (d,) float32
    x: torch.Tensor
    #: as a worker
    memory: Any
    #: the server's running total, (d,) float64
    total: torch.Tensor
    #: what the server has counted of the h_i of every other worker, (d,) float64 each
    replicas: dict[int, torch.Tensor] = field(default_factory=dict)
    #: how many rounds there were before the server made x
    rounds: int = 0
    #: on the server: how many are in the total and the replicas
    counted: int = 0


class ErrorFeedback(Protocol):
    """Rounds of n workers on a star whose hub is the server.

    The hub is a worker too (its own message needs no wire), so that the objective is the average
    over all nodes, which is what is evaluated. In a round every worker compresses its gradient, the
    server makes a step and sends all the new model, with which they end the round.

    What workers and server add up over the rounds is kept in float64: the server's sum of all that
    was sent and the workers' own sums must not drift apart by rounding. A message that is lost is
    left out by the server and counted in by its sender, so the two disagree until it comes back.

    The server's total is the weighted sum of the workers' h_i, and must be: a difference moves the
    limit for good. So the server has a replica of every h_i as far as it has counted it, (n - 1) d
    float64, and whoever comes back agrees with the other end on x and h_i: on the server's, unless
    it is the server that has lost what the worker has seen; h_i rounded to float32 on both ends.
    Then the total is summed up anew. While a worker is away its h_i counts as it was. Its e_i is
    that of its checkpoint, or 0: once, what was left out since is lost, and what e_i held then is
    sent again. That moves x by lr / n times the difference, which later steps undo.

    A worker whose server is away waits for it, as without it there is nothing to do.
    """

    synchronous = True
    static_graph = True
    resyncs = Standing

    @abstractmethod
    def start(self, node: Node) -> Any:
        """A worker's memory before the first round."""

    @abstractmethod
    def compress(self, memory: Any, gradient: torch.Tensor, node: Node) -> tuple[Any, Message]:
        """What a worker sends for ``gradient`` ((d,) float32), and its memory afterwards."""

    @abstractmethod
    def step(
        self, total: torch.Tensor, sent: Mapping[int, Any], node: Node
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The server's running total ((d,) float64) after what was ``sent``, and its step.

        The step is what the model moves against, (d,) float64, the step size included.
        """

    def weights(self, node: Node) -> tuple[float, ...]:
        """What each worker counts for; they sum to 1."""
        return (1 / node.n,) * node.n

    def shift(self, memory: Any, node: Node) -> torch.Tensor:
        """h_i, the sum of what a worker's messages have moved it by: (d,) float64.

        None of them does unless :meth:`moved` says so.
        """
        return zeros(node)

    def shifted(self, memory: Any, h: torch.Tensor) -> Any:
        """The memory with another h_i."""
        return memory

    def moved(self, message: Any) -> torch.Tensor | None:
        """What a message adds to its sender's h_i, (d,) float32; None for nothing."""
        return None

    def taking_part(self, node: Node) -> tuple[int, ...]:
        """The workers of this round, the same on every node."""
        return tuple(range(node.n))

    def check(self, in_degrees: tuple[int, ...], graph: GraphFacts) -> None:
        """The server must reach every worker."""
        if in_degrees[0] != len(in_degrees) - 1:
            raise ValueError(
                f"{self.kind} needs a topology whose node 0 reaches all others: use star"
            )

    def traffic(self, graph: GraphFacts) -> dict[type[Message], float]:
        """One message up and one model down for every worker but the server's own."""
        return {self.messages[1]: graph.nodes - 1, Model: graph.nodes - 1}

    async def run(self, node: Node) -> None:
        """The rounds, as worker and, on node 0, as server too."""
        kept = node.restore()
        new = State(node.initial(), self.start(node), zeros(node))
        state: State = new if kept is None else kept["state"]
        node.model = state.x
        state = await node.rejoin(state, self)
        for _ in node.rounds():
            state = await node.welcome(state, self)
            drawn = self.taking_part(node)
            message = None
            if node.id in drawn:
                gradient = await node.gradient(state.x)
                state.memory, message = self.compress(state.memory, gradient, node)
            if node.id == 0:
                await self._serve(state, message, drawn, node)
            else:
                await self._follow(state, message, node)
            node.model = state.x
            await node.report()
            await node.keep(state=state)

    async def _serve(
        self, state: State, message: Message | None, drawn: tuple[int, ...], node: Node
    ) -> None:
        """The server's part: a step with what has come, and the new model to all."""
        sent = dict(await node.gather(self.sends(node), of=drawn_others(drawn)))
        for worker, update in sent.items():
            if (move := self.moved(update)) is not None:
                state.replicas[worker] = replica(state, worker, node) + move
        sent |= {} if message is None else {0: message}
        ordered = {worker: sent[worker] for worker in sorted(sent)}
        state.total, step = self.step(state.total, ordered, node)
        state.x = (state.x.double() - step).float()
        state.rounds = state.counted = node.round + 1
        await node.send_all(dict.fromkeys(range(1, node.n), Model(state.x)))

    async def _follow(self, state: State, message: Message | None, node: Node) -> None:
        """A worker's part: its message to the server, and the new model."""
        if message is not None:
            await node.send(0, message)
        # the server may wait for another worker as long again; without it there is no next round
        patience_s = 2 * node.wait_s
        answers = await node.gather(Model, of=(0,), wait_for="all", within_s=patience_s)
        for answer in answers.values():
            state.x, state.rounds = answer.x, node.round + 1

    def resync_with(self, state: State, peer: int, node: Node) -> Standing | None:
        """The worker's h_i, and how far its sender knows the run; nothing between two workers."""
        if node.id == 0:
            return Standing(state.x, replica(state, peer, node).float(), state.counted)
        if peer == 0:
            return Standing(state.x, self.shift(state.memory, node).float(), state.rounds)
        return None

    def resync(self, state: State, peer: int, message: Standing | None, node: Node) -> State:
        """Agree on x and on the worker's h_i: on the server's, unless the worker knows more."""
        if message is None:
            return state
        if node.id != 0:
            h = self.shift(state.memory, node).float()
            if message.rounds >= state.rounds:
                state.x, state.rounds, h = message.x, message.rounds, message.h
            state.memory = self.shifted(state.memory, h.double())
            return state
        known = message.rounds <= state.counted
        h = replica(state, peer, node).float() if known else message.h
        state.replicas[peer] = h.double()
        if message.rounds > state.rounds:
            # of several workers that of the furthest
            state.x, state.rounds = message.x, message.rounds
        shifts = state.replicas | {0: self.shift(state.memory, node)}
        weights = self.weights(node)
        state.total = add_up((weights[i] * shifts[i] for i in sorted(shifts)), node)
        return state

    def sends(self, node: Node) -> type[Message]:
        """The type of the workers' messages in this round."""
        return self.messages[1]


class WithShift(ErrorFeedback):
    """Workers that keep an error e_i and a shift h_i, in this order: (d,) float64 both."""

    def start(self, node: Node) -> ErrorAndShift:
        """Both zero."""
        return zeros(node), zeros(node)

    def shift(self, memory: ErrorAndShift, node: Node) -> torch.Tensor:
        """h_i."""
        return memory[1]

    def shifted(self, memory: ErrorAndShift, h: torch.Tensor) -> ErrorAndShift:
        """The same error, another h_i."""
        return memory[0], h


def drawn_others(drawn: tuple[int, ...]) -> tuple[int, ...]:
    """Those of whom the server waits for a message."""
    return tuple(worker for worker in drawn if worker != 0)


def zeros(node: Node) -> torch.Tensor:
    """A (d,) float64 sum of nothing."""
    return torch.zeros(node.problem.dim, dtype=torch.float64)


def add_up(vectors: Iterable[torch.Tensor], node: Node) -> torch.Tensor:
    """The sum of (d,) vectors in float64, in the order given."""
    return sum((vector.double() for vector in vectors), start=zeros(node))


def replica(state: State, worker: int, node: Node) -> torch.Tensor:
    """What the server has counted of a worker's h_i, (d,) float64."""
    found = state.replicas.get(worker)
    return zeros(node) if found is None else found


def increment(message: Update | First) -> torch.Tensor:
    """What a message adds to its sender's estimate."""
    return message.g if isinstance(message, First) else message.q.dense
