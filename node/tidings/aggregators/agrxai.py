"""AGRXAI, the amplifier that asks what a network looks at."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from tidings.aggregators.density import Density
from tidings.api import Context, LocalProblem, aggregators
from tidings.units import Ratio


@aggregators.register("agrxai")
@dataclass(frozen=True)
class AGRXAI(Density):
    """AGRAMPLIFIER by explanation before the density filter (Gong et al., IEEE TIFS 2024).

    The caller takes each update as the parameters of a network, runs its own clean samples through
    it, and sees by Grad-CAM which channels of the first convolution the loss depends on::

        w_c    = sum over samples of mean_{h, w} dL / dA_c            with x_i as the parameters
        amp(x) = kernels and biases of the ``keep`` channels of the largest w_c, in that order
        out    = ``density`` with C_ij from amp(x_i)

    As the authors' code has it (10 of 20 channels); the journal's own algorithm was not at hand.
    Each decision costs a pass forward and back over the caller's samples for every row. Needs a
    problem with a convolution, and a caller whose data are clean: the server's share on a star.
    """

    keep: Ratio = field(default=Ratio(0.5), kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.keep:
            raise ValueError("keep must be above 0%")

    def check_problem(self, problem: LocalProblem) -> None:
        """A convolution to look at."""
        super().check_problem(problem)
        problem.channels(problem.initial())

    def amplified(self, rows: torch.Tensor, context: Context) -> torch.Tensor:
        """The parameters of every row's own most salient channels."""
        if context.problem is None:
            raise ValueError("agrxai looks at the caller's data: call it with a problem")
        parts = []
        for row in rows:
            salience, places = context.problem.channels(row)
            count = max(1, round(self.keep * len(salience)))
            best = salience.argsort(descending=True, stable=True)[:count]
            parts.append(row[places[best].flatten()])
        return torch.stack(parts)
