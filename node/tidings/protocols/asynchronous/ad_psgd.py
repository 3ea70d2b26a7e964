"""Asynchronous decentralized parallel SGD."""

from __future__ import annotations

from dataclasses import dataclass

from tidings.api import GraphFacts, Message, Node, Outcome, Protocol, Weights, protocols

#: how long a node steps back after a refusal, at most: the first time, and after many
_PAUSE_S, _LONGEST_PAUSE_S = 0.005, 0.08


@protocols.register("ad_psgd")
@dataclass(frozen=True)
class ADPSGD(Protocol):
    """Asynchronous decentralized parallel SGD (Lian et al., ICML 2018, Algorithm 1).

    No node waits for a slower one. Each repeats, at its own pace: take a gradient at a copy of the
    model and meanwhile average with one random neighbour, atomically, then step::

        g = g_i(xh_i)        beside        x_i, x_j <- (x_i + x_j) / 2
        x_i <- x_i - lr g

    The average is applied as an equal and opposite change on both sides, so the sum of the models
    is conserved even where a step falls between the two. A neighbour that is engaged refuses, and
    is asked again: to draw another one would couple whoever has just finished with each other, for
    nobody else is free, and models would mix within pairs only.

    Neighbours that are suspected dead are not drawn; where all are, a step goes without averaging.

    On the wire: x, once each way per averaging. Cost per local step: two messages of d floats.
    """

    lr: float

    static_graph = True
    two_way_links = True

    def traffic(self, graph: GraphFacts) -> dict[type[Message], float]:
        """Every node's step has one averaging, which takes a message each way."""
        return {Weights: 2 * graph.nodes}

    async def run(self, node: Node) -> None:
        """Train and average until the given number of local steps is done."""
        node.restore()
        x = node.model

        def offer(peer: int, seen: Message | None) -> Weights:
            return Weights(x.clone())

        def commit(peer: int, mine: Weights, theirs: Weights) -> None:
            x.add_(theirs.x - mine.x, alpha=0.5)

        node.on_exchange(offer, commit)
        for _ in node.rounds():
            async with node.tasks() as tasks:
                gradient = tasks.start(node.gradient(x))
                await self._average(node)
                x.sub_(await gradient, alpha=self.lr)
            await node.report()
            await node.keep()

    async def _average(self, node: Node) -> None:
        rng = node.rng("peer")
        while peers := node.live_neighbors:
            peer, pause_s = int(rng.choice(peers)), _PAUSE_S
            while peer not in node.suspected:
                if await node.exchange(peer) is Outcome.DELIVERED:
                    return
                # refused: step back, for who asks is engaged as well
                await node.sleep(pause_s * rng.random())
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
