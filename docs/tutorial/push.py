"""Chapter 5: nobody waits for anybody."""

from dataclasses import dataclass

import torch

from tidings import Message, Node, Outcome, Protocol, Reactive, Weights, on


@dataclass(frozen=True)
class Push(Reactive):
    """Each node steps at its own pace and pushes its model to a random neighbour, unasked."""

    lr: float

    async def start(self, node: Node) -> torch.Tensor:
        return node.model

    @on(Weights)
    async def heard(self, node: Node, x: torch.Tensor, source: int, message: Weights) -> None:
        x.add_(message.x - x, alpha=0.5)

    async def drive(self, node: Node, x: torch.Tensor) -> None:
        for _ in node.rounds():
            x.sub_(await node.gradient(x), alpha=self.lr)
            await node.send(int(node.rng("peer").choice(node.neighbors)), Weights(x))
            await node.report()


@dataclass(frozen=True)
class Pairwise(Protocol):
    """As Push, but two nodes swap models atomically: both average, or neither does."""

    lr: float

    async def run(self, node: Node) -> None:
        x = node.model

        def offer(peer: int, seen: Message | None) -> Weights:
            return Weights(x.clone())

        def commit(peer: int, mine: Weights, theirs: Weights) -> None:
            x.add_(theirs.x - mine.x, alpha=0.5)

        node.on_exchange(offer, commit)
        for _ in node.rounds():
            x.sub_(await node.gradient(x), alpha=self.lr)
            done = await node.exchange(int(node.rng("peer").choice(node.neighbors)))
            await node.report(refused=float(done is Outcome.REFUSED))
