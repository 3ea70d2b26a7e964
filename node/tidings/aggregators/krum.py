"""Krum."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tidings.aggregators.gram import PointRule, Points
from tidings.api import Context, aggregators


@aggregators.register("krum")
@dataclass(frozen=True)
class Krum(PointRule):
    """The row that lies closest to its nearest neighbours (Blanchard et al., NeurIPS 2017).

    A row's score is the sum of its squared distances to its m - f - 2 nearest other rows; the row
    of the smallest score is the result::

        s_i = sum_{j in the m - f - 2 nearest of i, j != i} |x_i - x_j|^2
        out = x_argmin s

    Both details matter: summing over all rows, or distances that are not squared, gives the medoid,
    which two liars can steer (one far away, one at the mean of everything). Neighbour counts of
    m - f - 1 are common elsewhere; this is the paper's.

    Needs m >= 2 f + 3. With f = 0 it is still one of the rows, not the mean. Among equal scores the
    first row wins; with fewer than three rows nothing can be told and the own row is returned.
    """

    f: int

    def __post_init__(self) -> None:
        if self.f < 0:
            raise ValueError(f"f must not be negative, got {self.f}")

    def min_rows(self, f: int) -> int:
        """2 f + 3."""
        return 2 * f + 3

    def combine_points(self, points: Points, context: Context) -> torch.Tensor:
        """A copy of the row with the smallest score."""
        scores = krum_scores(points, context.f)
        return points.point(context.own if scores is None else int(scores.argmin()))


def krum_scores(points: Points, f: int) -> torch.Tensor | None:
    """Each point's score, (k,) float64; None where there are too few points for any."""
    neighbours = len(points) - f - 2
    if neighbours < 1:
        return None
    nearest = points.squared_distances().sort(dim=1).values
    # column 0 is the distance to itself
    return nearest[:, 1 : 1 + neighbours].sum(dim=1)
