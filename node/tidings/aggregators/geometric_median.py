"""The geometric median."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tidings.aggregators.gram import PointRule, Points
from tidings.api import Context, aggregators


@aggregators.register("geometric_median")
@dataclass(frozen=True)
class GeometricMedian(PointRule):
    """The geometric median by smoothed Weiszfeld (RFA, Pillutla et al., IEEE TSP 2022).

    The point with the smallest sum of distances, by iterated re-weighting::

        w_i <- 1 / max(smoothing, |x_i - z|),    z <- sum_i w_i x_i / sum_i w_i
        out  = argmin_z sum_i |x_i - z|          in the limit

    ``smoothing`` is a distance: within it a row no longer pulls harder the closer it is. It
    withstands any f < m / 2; ``f`` only declares how many it must.

    Weiszfeld's convergence is linear, so from the mean of all rows, which one liar can put at
    10^30, it would take hundreds of iterations. It is started at the mean of the tightest majority:
    of a row and its m // 2 nearest, for the row that has these the closest around it. From
    there the default number of iterations comes within a percent of the smallest sum, mostly far
    less; an iteration costs m^2 operations, whatever d is.
    """

    f: int = 0
    iterations: int = 64
    smoothing: float = 1e-6

    def __post_init__(self) -> None:
        if self.f < 0:
            raise ValueError(f"f must not be negative, got {self.f}")
        if self.iterations < 1:
            raise ValueError(f"iterations must be at least 1, got {self.iterations}")
        if not self.smoothing > 0:
            raise ValueError(f"smoothing must be above zero, got {self.smoothing}")

    def combine_points(self, points: Points, context: Context) -> torch.Tensor:
        """The geometric median of all rows."""
        weights = _tightest_majority(points)
        for _ in range(self.iterations):
            pull = 1 / points.distances_to(weights).clamp_(min=self.smoothing)
            weights = pull / pull.sum()
        return points.combination(weights)


def _tightest_majority(points: Points) -> torch.Tensor:
    """Equal weights, (m,) float64, on the m // 2 + 1 rows of the smallest ball around a row."""
    majority = len(points) // 2 + 1
    distances, order = points.squared_distances().sort(dim=1, stable=True)
    tightest = int(distances[:, majority - 1].argmin())
    weights = torch.zeros(len(points), dtype=torch.float64)
    weights[order[tightest, :majority]] = 1 / majority
    return weights
