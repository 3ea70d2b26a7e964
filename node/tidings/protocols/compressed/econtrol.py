"""EControl: error feedback whose error is kept in check by one parameter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from tidings.api import Compressor, LocalProblem, Message, Node, protocols
from tidings.protocols.compressed.contraction import require_contraction
from tidings.protocols.compressed.feedback import (
    ErrorAndShift,
    First,
    Model,
    Standing,
    Update,
    WithShift,
    add_up,
    increment,
)


@protocols.register("econtrol")
@dataclass(frozen=True)
class EControl(WithShift):
    """EControl (Gao, Islamov & Stich, ICLR 2024, "EControl: Fast Distributed Optimization with
    Compression and Error Control").

    One message carries both the gradient difference and a share eta of the error. e_i starts at 0,
    h_i at the first gradient, which is sent uncompressed (``dense_start``; else at 0)::

        q_i  = C(eta e_i + g_i(x) - h_i)                 to the server
        e_i <- e_i + g_i(x) - h_i - q_i
        h_i <- h_i + q_i,       h <- h + (1/n) sum_i q_i
        x   <- x - lr h                                  to all workers

    x - lr mean e_i is SGD on the same gradients. eta = 0 is ``ef21``; h_i frozen at 0 with eta = 1
    is ``ec``. The theory takes eta = delta / 400, the default, for C with contraction delta; from
    delta / 10 to delta is faster, and beyond that it diverges before eta = 1. With stochastic
    gradients the error falls like 1 / n, with data as different as they may be.

    On the wire: q_i up, x down. Cost per round: n - 1 compressed messages and n - 1 of d floats;
    in the first round, n - 1 gradients of d floats instead of the compressed messages.
    """

    lr: float
    compressor: Compressor = field(default_factory=lambda: Compressor.parse("top_k"))
    #: share of the error in a message; None (null) for delta / 400
    eta: float | None = None
    #: whether h_i starts at the first gradient, sent uncompressed
    dense_start: bool = True

    messages = (Model, Update, First, Standing)

    def __post_init__(self) -> None:
        """ValueError for an eta outside of [0, 1]."""
        super().__post_init__()
        if self.eta is not None and not 0 <= self.eta <= 1:
            raise ValueError(f"eta must be from 0 to 1, got {self.eta:g}")

    def check_problem(self, problem: LocalProblem) -> None:
        """The compressor must be contractive."""
        require_contraction(self, self.compressor, problem)

    def sends(self, node: Node) -> type[Message]:
        """The gradient itself in the first round."""
        return First if self.dense_start and node.round == 0 else Update

    def compress(
        self, memory: ErrorAndShift, gradient: torch.Tensor, node: Node
    ) -> tuple[ErrorAndShift, Message]:
        """The gradient difference and some of the error, compressed."""
        e, h = memory
        if self.sends(node) is First:
            return (e, gradient.double()), First(gradient)
        eta = self.eta
        if eta is None:
            eta = require_contraction(self, self.compressor, node.problem) / 400
        difference = gradient - h
        q = self.compressor((eta * e + difference).float(), node.rng("compress"))
        return (e + difference - q.dense, h + q.dense), Update(q)

    def step(
        self, h: torch.Tensor, sent: Mapping[int, Update | First], node: Node
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Against the mean estimate as it is after this round's messages."""
        h = h + add_up((increment(message) for message in sent.values()), node) / node.n
        return h, self.lr * h

    def moved(self, message: Update | First) -> torch.Tensor:
        """By the first gradient, and then by q_i."""
        return increment(message)
