"""Workers that send compressed vectors to a server: what EC, EControl and EF21 have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from tidings.api import Compressed, GraphFacts, Message, Node, Protocol, Vector


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


class ErrorFeedback(Protocol):
    """Rounds of n workers on a star whose hub is the server.

    The hub is a worker too (its own message needs no wire), so that the objective is the average
    over all nodes, which is what is evaluated. In a round every worker compresses its gradient, the
    server makes a step and sends all the new model, with which they end the round.

    What workers and server add up over the rounds is kept in float64: the server's sum of all that
    was sent and the workers' own sums must not drift apart by rounding. A message that is lost is
    left out by the server and counted in by its sender, so the two disagree from then on.
    """

    synchronous = True
    static_graph = True

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
        x = node.initial()
        memory = self.start(node)
        total = zeros(node)
        for _ in node.rounds():
            drawn = self.taking_part(node)
            message = None
            if node.id in drawn:
                memory, message = self.compress(memory, await node.gradient(x), node)
            if node.id == 0:
                sent = dict(await node.gather(self.sends(node), of=drawn_others(drawn)))
                sent |= {} if message is None else {0: message}
                ordered = {worker: sent[worker] for worker in sorted(sent)}
                total, step = self.step(total, ordered, node)
                x = (x.double() - step).float()
                await node.send_all(dict.fromkeys(range(1, node.n), Model(x)))
            else:
                if message is not None:
                    await node.send(0, message)
                # the server may wait for another worker as long again
                answers = await node.gather(Model, of=(0,), within_s=2 * node.wait_s)
                for answer in answers.values():
                    x = answer.x
            node.model = x
            await node.report()

    def sends(self, node: Node) -> type[Message]:
        """The type of the workers' messages in this round."""
        return self.messages[1]


def drawn_others(drawn: tuple[int, ...]) -> tuple[int, ...]:
    """Those of whom the server waits for a message."""
    return tuple(worker for worker in drawn if worker != 0)


def zeros(node: Node) -> torch.Tensor:
    """A (d,) float64 sum of nothing."""
    return torch.zeros(node.problem.dim, dtype=torch.float64)


def add_up(vectors: Iterable[torch.Tensor], node: Node) -> torch.Tensor:
    """The sum of (d,) vectors in float64, in the order given."""
    return sum((vector.double() for vector in vectors), start=zeros(node))
