"""Centred clipping."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tidings.aggregators.gram import PointRule, Points
from tidings.api import Context, aggregators


@aggregators.register("centered_clipping")
@dataclass(frozen=True)
class CenteredClipping(PointRule):
    """Centred clipping around the own row (Karimireddy et al., ICML 2021).

    Starting from a centre v, rows that are farther than ``tau`` pull no harder than from there::

        v <- v + (1/m) sum_i min(1, tau / |x_i - v|) (x_i - v)        ``iterations`` times

    In the paper v starts from the previous round's aggregate. A rule keeps no state here, so v
    starts from the own row, the one that a node can trust, as in its decentralised form (He et al.,
    2022). f bad rows move the result by at most ``iterations`` f tau / m, so ``tau`` must be of the
    order of the honest spread; ``f`` itself only declares how many bad rows there may be. Where the
    own row is no better than the others (a server's row 0), so is the result.
    """

    f: int = 0
    tau: float = 10.0
    iterations: int = 1

    def __post_init__(self) -> None:
        if self.f < 0:
            raise ValueError(f"f must not be negative, got {self.f}")
        if not self.tau > 0:
            raise ValueError(f"tau must be above zero, got {self.tau}")
        if self.iterations < 1:
            raise ValueError(f"iterations must be at least 1, got {self.iterations}")

    def combine_points(self, points: Points, context: Context) -> torch.Tensor:
        """The clipped mean around the own row."""
        weights = torch.zeros(len(points), dtype=torch.float64)
        weights[context.own] = 1
        for _ in range(self.iterations):
            # v stays a weighted mean of the rows, so only its weights are kept
            scale = (self.tau / points.distances_to(weights)).clamp_(max=1)
            weights = weights * (1 - scale.mean()) + scale / len(points)
        return points.combination(weights)
