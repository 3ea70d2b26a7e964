"""Multi-Krum."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tidings.aggregators.gram import PointRule, Points
from tidings.aggregators.krum import krum_scores
from tidings.api import Context, aggregators


@aggregators.register("multi_krum")
@dataclass(frozen=True)
class MultiKrum(PointRule):
    """The mean of the rows with the best Krum scores (Blanchard et al., NeurIPS 2017, Section 4).

    With Krum's scores s_i, each the sum of the squared distances to the m - f - 2 nearest others::

        out = (1 / |S|) sum_{i in S} x_i,    S = the ``selected`` rows of the smallest s_i

    ``selected`` is m - f - 2 where it is not given, the most that the paper's proof allows; others
    take m - f. With 1 it is Krum. Needs m >= 2 f + 3. Among equal scores the earlier row is better.
    """

    f: int
    selected: int | None = None

    def __post_init__(self) -> None:
        if self.f < 0:
            raise ValueError(f"f must not be negative, got {self.f}")
        if self.selected is not None and self.selected < 1:
            raise ValueError(f"selected must be at least 1, got {self.selected}")

    def min_rows(self, f: int) -> int:
        """2 f + 3, and ``selected`` honest ones of them."""
        return max(2 * f + 3, f + 2 + (self.selected or 1))

    def combine_points(self, points: Points, context: Context) -> torch.Tensor:
        """The mean of the selected rows; the own row where there are too few."""
        scores = krum_scores(points, context.f)
        if scores is None:
            return points.point(context.own)
        most = len(points) - context.f - 2
        count = most if self.selected is None else min(most, self.selected)
        weights = torch.zeros(len(points), dtype=torch.float64)
        weights[scores.argsort(stable=True)[:count]] = 1 / count
        return points.combination(weights)
