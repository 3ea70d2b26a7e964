"""Byz-VR-MARINA: variance reduction as a defence, and its form with client sampling."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch

from tidings.api import (
    Aggregator,
    Compressed,
    Compressor,
    GraphFacts,
    LocalProblem,
    Message,
    Node,
    Protocol,
    Vector,
    protocols,
)
from tidings.units import Ratio


class Point(Message):
    """The server's model x^k; the last one closes the run."""

    x: Vector
    last: bool

    sender = "server"


class Full(Message):
    """A client's full gradient at x^k."""

    gradient: Vector

    sender = "client"


class Difference(Message):
    """Q(Delta_i), what a client's gradient on one batch changed by from x^(k-1) to x^k."""

    q: Compressed

    sender = "client"


@protocols.register("byz_vr_marina")
@dataclass(frozen=True)
class ByzVRMarina(Protocol):
    """Byz-VR-MARINA (Gorbunov, Horvath, Richtarik & Gidel, ICLR 2023, Algorithm 1).

    Stochastic gradients give liars noise to hide in, so their variance is reduced: most rounds send
    compressed differences, and full gradients are sent by chance. With a coin that all nodes share,
    c_k = 1 with probability ``p`` (and in round 0), the server of a star computes::

        g_i = grad f_i(x^k)                                      if c_k = 1
        g_i = g^(k-1) + Q(grad f_iB(x^k) - grad f_iB(x^(k-1)))   if c_k = 0, on one batch B
        g^k = F(g_1, ..., g_n),        x^(k+1) = x^k - lr g^k

    Q is any unbiased compressor, F a robust rule; for median, Krum and the geometric median the
    theory wants ``bucketing`` before it. Suggested p: the smaller of b/m and 1/(1+omega).

    The paper sends g^k down and clients step themselves; here x^(k+1) goes down, as many numbers,
    so that a client that missed one does not go on from a wrong point. It then has no difference to
    send in the next round, and is left out, as one is that is not heard before the deadline.

    On the wire: x down; up the compressed difference, with probability p the d floats of a
    gradient. Cost per round and client: d floats down, p d + (1-p) |Q| up; 2 gradients or, with
    probability p, a full one.
    """

    lr: float
    p: float = 0.1
    aggregator: Aggregator = field(default_factory=lambda: Aggregator.parse("median"))
    compressor: Compressor = field(default_factory=lambda: Compressor.parse("identity"))

    messages = (Point, Full, Difference)
    ends_with = "server"
    synchronous = True

    def __post_init__(self) -> None:
        """A probability above zero."""
        super().__post_init__()
        if not 0 < self.p <= 1:
            raise ValueError(f"p must be above 0 and at most 1, got {self.p}")

    def check(self, in_degrees: tuple[int, ...], graph: GraphFacts) -> None:
        """The server must reach every client, and the rule needs enough of them."""
        clients = len(in_degrees) - 1
        if in_degrees[0] != clients:
            raise ValueError(f"{self.kind} needs a topology whose node 0 reaches all: use star")
        try:
            self.aggregator.check(self.drawn(clients, full=True))
        except ValueError as error:
            raise ValueError(f"of the gradients in a round: {error}") from error

    def check_problem(self, problem: LocalProblem) -> None:
        """Full gradients, an unbiased compressor, and what the rule needs."""
        if not problem.has_full_gradient:
            raise ValueError(f"{self.kind} needs a problem with a full gradient")
        if self.compressor.omega(problem.dim) is None:
            raise ValueError(
                f"{self.kind} needs an unbiased compressor, {self.compressor.kind} is biased"
            )
        self.aggregator.check_problem(problem)

    def traffic(self, graph: GraphFacts) -> dict[type[Message], float]:
        """To all clients, and from those drawn."""
        clients = graph.nodes - 1
        return {
            Point: clients,
            Full: self.p * self.drawn(clients, full=True),
            Difference: (1 - self.p) * self.drawn(clients, full=False),
        }

    def drawn(self, clients: int, full: bool) -> int:
        """How many of the clients send; ``full``: their full gradients."""
        return clients

    def combine(
        self, g: torch.Tensor, differences: torch.Tensor, moved: float, node: Node
    ) -> torch.Tensor:
        """g^k from g^(k-1) and the (m, d) differences after a step of length ``moved``."""
        return node.aggregate(self.aggregator, g + differences)

    async def run(self, node: Node) -> None:
        """Serve or compute, by role."""
        await (self._serve(node) if node.id == 0 else self._compute(node))

    def _draw(self, node: Node) -> bool:
        """The coin of this round; who sends becomes ``node.cohort``. The same on every node."""
        luck = node.shared_rng(f"round {node.round}")
        full = bool(luck.random() < self.p) or node.round == 0
        chosen = luck.choice(node.n - 1, self.drawn(node.n - 1, full), replace=False)
        node.cohort = tuple(sorted(1 + int(i) for i in chosen))
        return full

    async def _serve(self, node: Node) -> None:
        x = node.initial()
        before, g = x, torch.zeros_like(x)
        for _ in node.rounds():
            full = self._draw(node)
            await node.send_all(node.to_neighbors(Point(x, False)))
            if full:
                gradients = await node.gather(Full, of=node.cohort)
                if gradients:
                    g = node.aggregate(self.aggregator, gradients.stack("gradient"))
            else:
                inbox = await node.gather(Difference, of=node.cohort)
                if inbox:
                    rows = torch.stack([message.q.dense for message in inbox.values()])
                    g = self.combine(g, rows, float((x - before).norm()), node)
            before, x = x, x - self.lr * g
            node.model = x
            await node.report()
        await node.send_all(node.to_neighbors(Point(x, True)))

    async def _compute(self, node: Node) -> None:
        heard = -1
        async for order in node.messages(Point):
            await node.catch_up(order.round + order.message.last)
            before, x = node.model, order.message.x
            node.model = x
            if order.message.last:
                return
            full = self._draw(node)
            followed, heard = order.round == heard + 1, order.round
            if node.id in (node.cohort or ()):
                if full:
                    await node.send(order.source, Full(await node.full_gradient(x)))
                elif followed:
                    there, here = await node.gradients(x, before)
                    q = self.compressor(there - here, node.rng("compressor"))
                    await node.send(order.source, Difference(q))
            await node.report()


@protocols.register("byz_vr_marina_pp")
@dataclass(frozen=True)
class ByzVRMarinaPP(ByzVRMarina):
    """Byz-VR-MARINA-PP: with client sampling (Malinovsky, Richtarik, Horvath & Gorbunov, 2024).

    "Byzantine robustness and partial participation can be achieved at once: just clip gradient
    differences", NeurIPS 2024, Algorithm 1. As ``byz_vr_marina``, but only sampled clients S_k
    send: ``participation`` of them, ``full_participation`` where they send full gradients. Then
    attackers can be the majority of a round, which no rule withstands, so differences are clipped::

        g^k = F({grad f_i(x^k)}, i in S_k)                               if c_k = 1
        g^k = g^(k-1) + F({clip_lambda(Q(Delta_i))}, i in S_k)           if c_k = 0
        lambda = clip |x^k - x^(k-1)|,     clip_lambda(v) = min(1, lambda / |v|) v

    A round of liars moves g by no more than lambda times what F can stretch (median: sqrt(d) at
    worst; ``differences: mean``, the paper's Byz-VR-MARINA+ in appendix F: 1). ``clip`` 2 L is the
    theory's; null is no clipping. With F translation-equivariant, everyone drawn and no clipping it
    is Byz-VR-MARINA. S_k comes from the shared stream too, so attackers know it.

    The rule's f must fit ``full_participation``; in smaller rounds it is lowered to what the rows
    allow.

    On the wire: x down to all; up, from those drawn, the compressed difference, with probability p
    the d floats of a gradient. Cost per round: n d floats down, p Ĉ d + (1-p) C |Q| up.
    """

    clip: float | None = 1.0
    participation: Ratio = Ratio(0.2)
    full_participation: Ratio = Ratio(1.0)
    differences: Literal["robust", "mean"] = "robust"

    def __post_init__(self) -> None:
        """A positive clip factor, and somebody drawn in every round."""
        super().__post_init__()
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"clip must be above zero or null, got {self.clip}")
        if not 0 < self.participation <= self.full_participation:
            raise ValueError("participation must be above 0% and at most full_participation")

    def drawn(self, clients: int, full: bool) -> int:
        """The fraction of the clients that the round draws, rounded up."""
        return math.ceil((self.full_participation if full else self.participation) * clients)

    def combine(
        self, g: torch.Tensor, differences: torch.Tensor, moved: float, node: Node
    ) -> torch.Tensor:
        """g^k from g^(k-1) and the clipped differences."""
        if self.clip is not None:
            differences = clipped(differences, self.clip * moved)
        if self.differences == "mean":
            return g + differences.mean(dim=0)
        return g + node.aggregate(self.aggregator, differences)


def clipped(rows: torch.Tensor, limit: float) -> torch.Tensor:
    """The rows of (m, d), shortened to ``limit`` at most; a row that is not finite becomes zero."""
    norms = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64)
    scale = (limit / norms).clamp_(max=1).nan_to_num_(nan=1.0)
    shortened = (rows.double() * scale[:, None]).float()
    return torch.where(rows.isfinite().all(dim=1, keepdim=True), shortened, 0.0)
