"""Federated averaging with unknown participation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tidings.api import (
    GraphFacts,
    LocalProblem,
    Message,
    Node,
    Participation,
    Protocol,
    Vector,
    protocols,
)
from tidings.protocols.federated.star import check_hub, check_training, sgd
from tidings.units import Ratio


class Asked(Message):
    """The server's question who is there; the last one closes the run."""

    last: bool

    sender = "server"


class Here(Message):
    """Whether a client takes part in this round."""

    present: bool

    sender = "client"


class Current(Message):
    """The server's model."""

    x: Vector

    sender = "server"


class Change(Message):
    """What a client's local steps made of the model."""

    x: Vector

    sender = "client"


class Final(Message):
    """The server's model after the last round, for all."""

    x: Vector

    sender = "server"


@dataclass
class Estimate:
    """A client's weight: the mean number of rounds between its parts, cut off (Algorithm 2)."""

    cutoff: int
    weight: float = 1.0
    #: rounds since the last interval ended, and intervals that have ended
    rounds: int = 0
    intervals: int = 0

    def passed(self, took_part: bool) -> None:
        """A round has passed."""
        self.rounds += 1
        if took_part or self.rounds == self.cutoff:
            known = self.intervals * self.weight if self.intervals else 0.0
            self.intervals += 1
            self.weight = (known + self.rounds) / self.intervals
            self.rounds = 0


@protocols.register("fed_au")
@dataclass(frozen=True, kw_only=True)
class FedAU(Protocol):
    """FedAU (Wang & Ji, ICLR 2024, Algorithms 1 and 2).

    Nobody knows how often a client takes part. The server weighs the change of client n by an
    estimate of 1 / p_n, the mean length of the intervals between its parts so far, an interval
    being cut off after ``cutoff`` rounds::

        x <- x + server_lr (1 / N) sum_{n present} w_n (x_n - x)
        S += 1;  where n took part or S = cutoff:  w_n <- (M w_n + S) / (M + 1),  M += 1,  S = 0

    from w_n = 1, S = M = 0; an interval that ends in a round has no part in the weight of that
    round. E[S] = (1 - (1 - p)^cutoff) / p. ``weighting: participating`` is plain averaging over
    those present, which ends at the minimum of sum p_n f_n; ``all`` has w_n = 1.

    Which clients are present is the experiment's ``participation``: the server asks in every round,
    and sends its model to those that say so. A client that is not heard before the deadline has no
    part; one that was not asked is there again in the next round, for the question says which it
    is.

    On the wire: a bit down and up; x down and x_n - x up. Cost per round: 2 N empty messages, 2 m
    of d floats for the m clients present.
    """

    lr: float
    local_steps: int = 5
    server_lr: float = 1.0
    cutoff: int = 50
    weighting: Literal["estimated", "participating", "all"] = "estimated"
    participation: Participation = field(
        default_factory=lambda: Participation.parse({"kind": "bernoulli", "by": "equal"})
    )

    messages = (Asked, Here, Current, Change, Final)
    ends_with = "server"
    synchronous = True

    def __post_init__(self) -> None:
        """A step that goes somewhere, an interval that has a length."""
        super().__post_init__()
        check_training(self.local_steps, Ratio(1.0), "participation")
        if self.server_lr <= 0:
            raise ValueError(f"server_lr must be above zero, got {self.server_lr:g}")
        if self.cutoff < 1:
            raise ValueError(f"cutoff must be at least 1, got {self.cutoff}")

    def check(self, in_degrees: tuple[int, ...], graph: GraphFacts) -> None:
        """The server must reach every client."""
        check_hub(self.kind, in_degrees)

    def check_problem(self, problem: LocalProblem) -> None:
        """Labels, where participation goes by them."""
        if self.participation.by == "labels" and problem.label_shares is None:
            raise ValueError("participation by labels needs a problem with labels")

    def traffic(self, graph: GraphFacts) -> dict[type[Message], float]:
        """Clients are present in ``mean`` of the rounds."""
        clients = graph.nodes - 1
        present = clients * float(self.participation.mean)
        return {Asked: clients, Here: clients, Current: present, Change: present}

    async def run(self, node: Node) -> None:
        """Serve or train, by role; the last model is given to all."""
        await (self._serve(node) if node.id == 0 else self._train(node))

    async def _serve(self, node: Node) -> None:
        clients = node.neighbors
        estimates = {k: Estimate(self.cutoff) for k in clients}
        for _ in node.rounds():
            await node.send_all(node.to_neighbors(Asked(False)))
            heard = await node.gather(Here)
            present = tuple(k for k, message in heard.items() if message.present)
            await node.send_all(dict.fromkeys(present, Current(node.model)))
            inbox = await node.gather(Change, of=present)
            x = node.model.clone()
            for k, change in inbox.items():
                weight = estimates[k].weight if self.weighting == "estimated" else 1.0
                shared = len(inbox) if self.weighting == "participating" else len(clients)
                x.add_(change.x, alpha=self.server_lr * weight / shared)
            for k, estimate in estimates.items():
                estimate.passed(k in inbox)
            node.model = x
            await node.report(present=len(inbox))
        await node.send_all(node.to_neighbors(Asked(True)))
        await node.send_all(node.to_neighbors(Final(node.model)))

    async def _train(self, node: Node) -> None:
        common = node.shared_rng("participation")
        share = self.participation.share(node.id - 1, node.n - 1, node.problem, common)
        presence = self.participation.rounds(share, node.rng("participation"))
        drawn = 0
        async for order in node.messages(Asked):
            await node.catch_up(order.round + order.message.last)
            if order.message.last:
                break
            present = [next(presence) for _ in range(drawn, node.round + 1)][-1]
            drawn = node.round + 1
            await node.send(0, Here(present))
            # the server may wait for the others as long again
            patience_s = 2 * node.wait_s
            if present and (inbox := await node.gather(Current, of=(0,), within_s=patience_s)):
                x = node.model = inbox[0].x
                change = await sgd(node, x, self.lr, self.local_steps) - x
                await node.send(0, Change(change))
            await node.report()
        if (final := await node.recv(Final)) is not None:
            node.model = final.message.x
