"""EF21-W: EF21 with workers weighted by their smoothness."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tidings.api import LocalProblem, Node, protocols
from tidings.protocols.compressed.ef21 import EF21, smoothness_of


@protocols.register("ef21_w")
@dataclass(frozen=True)
class EF21W(EF21):
    """EF21-W ("Error Feedback Reloaded", Richtarik, Gasanov & Burlachenko, ICLR 2024).

    EF21 on f = sum_i w_i f_i / (n w_i) with w_i = L_i / sum_j L_j, so that rough functions count
    for more and are asked for less::

        q_i  = C(g_i(x) / (n w_i) - h_i)                 to the server
        h_i <- h_i + q_i,       h <- h + sum_i w_i q_i
        x   <- x - lr h                                  to all workers

    Its theory allows lr = 1 / (L_f + L xi) with L the arithmetic mean of the L_i, up to sqrt(n)
    times smaller than the quadratic mean of ``ef21``. A compressor with C(a v) = a C(v) for all
    a > 0 (top-k, scaled sign) makes both give the same models at the same lr: the gain is the
    step; they differ with others, such as natural compression, and in what rounding does.

    ``stochastic_gradients`` and ``participation`` as there (EF21-W-SGD, EF21-W-PP). Needs a problem
    that knows its smoothness constants, even where lr is given.

    On the wire and cost per round: as ``ef21``.
    """

    #: the mean of the L_i that the theory's step is made with
    smoothness: Literal["arithmetic"] = "arithmetic"

    def check_problem(self, problem: LocalProblem) -> None:
        """The L_i must be known."""
        super().check_problem(problem)
        smoothness_of(self, problem)

    def weights(self, node: Node) -> tuple[float, ...]:
        """w_i = L_i / sum_j L_j."""
        local = smoothness_of(self, node.problem).local
        return tuple(constant / sum(local) for constant in local)
