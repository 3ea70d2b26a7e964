"""EF21: error feedback that learns the gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch

from tidings.api import Compressor, LocalProblem, Message, Node, Smoothness, protocols
from tidings.protocols.compressed.contraction import require_contraction
from tidings.protocols.compressed.feedback import (
    ErrorFeedback,
    First,
    Model,
    Standing,
    Update,
    add_up,
    increment,
    zeros,
)
from tidings.units import Ratio


@protocols.register("ef21")
@dataclass(frozen=True)
class EF21(ErrorFeedback):
    """EF21 (Richtarik, Sokolov & Fatkhullin, NeurIPS 2021, Algorithm 2).

    Every worker sends compressed differences to an estimate h_i of its gradient, which starts at
    the first one, sent uncompressed (``dense_start``; else at 0)::

        q_i  = C(g_i(x) - h_i)                           to the server
        h_i <- h_i + q_i,       h <- h + (1/n) sum_i q_i
        x   <- x - lr h                                  to all workers

    lr may be left out where the problem's smoothness is known. It is then ``step_factor`` times
    that of the theory, with delta the contraction of C and L_f the smoothness of the average::

        1 / (L_f + L xi),      xi = sqrt(1 - delta) / (1 - sqrt(1 - delta))

    L is the quadratic mean of the workers' L_i (the original theory) or, smaller, their
    arithmetic mean (Richtarik, Gasanov & Burlachenko, ICLR 2024: the same algorithm allows it).

    EF21-SGD is the same on stochastic gradients; the theory's step is then that of delta / 2
    (``stochastic_gradients``). EF21-PP: with ``participation`` p a worker takes part in a round
    with probability p, drawn from a seed that all share, and keeps its h_i else. Decision 21
    derives both steps.

    On the wire: q_i up, x down. Cost per round: n - 1 compressed messages (p times as many) and
    n - 1 of d floats; in the first round, n - 1 gradients of d floats instead.
    """

    #: None (null) for that of the theory
    lr: float | None = None
    compressor: Compressor = field(default_factory=lambda: Compressor.parse("top_k"))
    #: which mean of the L_i the theory's step is made with
    smoothness: Literal["quadratic", "arithmetic"] = "quadratic"
    #: what the theory's step is multiplied by
    step_factor: float = 1.0
    #: whether the theory's step is to be that for stochastic gradients
    stochastic_gradients: bool = False
    #: probability that a worker takes part in a round
    participation: Ratio = Ratio(1.0)
    #: whether h_i starts at the first gradient, sent uncompressed
    dense_start: bool = True

    messages = (Model, Update, First, Standing)

    def __post_init__(self) -> None:
        """ValueError for a step or a participation that is not positive."""
        if (self.lr is not None and self.lr < 0) or self.step_factor <= 0:
            raise ValueError("lr and step_factor must not be negative")
        if not 0 < self.participation <= 1:
            raise ValueError("participation must be above 0% and at most 100%")

    def check_problem(self, problem: LocalProblem) -> None:
        """The compressor must be contractive, and the smoothness known where lr is left out."""
        require_contraction(self, self.compressor, problem)
        self.step_size(problem)

    def step_size(self, problem: LocalProblem) -> float:
        """lr, or that of the theory; ValueError where the problem does not know its smoothness."""
        if self.lr is not None:
            return self.lr
        known = smoothness_of(self, problem)
        delta = require_contraction(self, self.compressor, problem)
        xi = error_ratio(delta / 2 if self.stochastic_gradients else delta, self.participation)
        return self.step_factor / (known.average + self.mean(known) * xi)

    def mean(self, known: Smoothness) -> float:
        """The mean of the L_i that the theory's step is made with."""
        return known.quadratic_mean if self.smoothness == "quadratic" else known.arithmetic_mean

    def taking_part(self, node: Node) -> tuple[int, ...]:
        """Each with probability p, independently; all of them in a first, dense round."""
        if self.sends(node) is First or self.participation >= 1:
            return tuple(range(node.n))
        coins = node.shared_rng(f"participation {node.round}").random(node.n)
        return tuple(worker for worker in range(node.n) if coins[worker] < self.participation)

    def start(self, node: Node) -> torch.Tensor:
        """The estimate h."""
        return zeros(node)

    def sends(self, node: Node) -> type[Message]:
        """The gradient itself in the first round."""
        return First if self.dense_start and node.round == 0 else Update

    def compress(
        self, h: torch.Tensor, gradient: torch.Tensor, node: Node
    ) -> tuple[torch.Tensor, Message]:
        """The compressed difference to the estimate."""
        gradient = gradient / (node.n * self.weights(node)[node.id])
        if self.sends(node) is First:
            return gradient.double(), First(gradient)
        q = self.compressor((gradient - h).float(), node.rng("compress"))
        return h + q.dense, Update(q)

    def step(
        self, h: torch.Tensor, sent: Mapping[int, Update | First], node: Node
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Against the mean estimate as it is after this round's messages."""
        weights = self.weights(node)
        moved = (weights[worker] * increment(m).double() for worker, m in sent.items())
        h = h + add_up(moved, node)
        return h, self.step_size(node.problem) * h

    def shift(self, h: torch.Tensor, node: Node) -> torch.Tensor:
        """All that a worker keeps."""
        return h

    def shifted(self, memory: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        """The other one."""
        return h

    def moved(self, message: Update | First) -> torch.Tensor:
        """By the first gradient, and then by q_i."""
        return increment(message)


def smoothness_of(protocol: EF21, problem: LocalProblem) -> Smoothness:
    """The problem's; ValueError where it is not known."""
    if problem.smoothness is None:
        raise ValueError(
            f"{protocol.kind} needs the smoothness constants of the problem, which it does not "
            "know; give lr"
        )
    return problem.smoothness


def error_ratio(delta: float, participation: float = 1.0) -> float:
    """xi = sqrt(B / theta), where E|h_i - grad f_i|^2 falls by 1 - theta and grows by B a round.

    With s the step's length: G <- (1 - theta) G + B L_i^2 s^2. With probability p a message comes,
    theta = 1 - sqrt(1 - delta) and B = (1 - delta) / theta; else the old h_i is compared with the
    new gradient, theta = -r and B = 1 + 1 / r for any r > 0; here that with the least ratio.
    """
    root = math.sqrt(1 - delta)
    theta, growth = 1 - root, (1 - delta) / (1 - root)
    if participation == 1:
        return math.sqrt(growth / theta)
    absent = 1 - participation
    a, t = participation * growth + absent, participation * theta
    r = (math.sqrt(absent**2 + a * t) - absent) / a
    return math.sqrt((a + absent / r) / (t - absent * r))
