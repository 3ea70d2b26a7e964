"""Nearest-neighbour mixing."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tidings.aggregators.gram import Points
from tidings.aggregators.pre import PreAggregator
from tidings.api import Context, aggregators


@aggregators.register("nnm")
@dataclass(frozen=True)
class NNM(PreAggregator):
    """Nearest-neighbour mixing before another rule (Allouah et al., AISTATS 2023).

    Every row is replaced by the mean of the m - f rows nearest to it, itself included, and the
    result goes into the rule ``then``, which gets the same f::

        y_i = (1 / (m - f)) sum_{j in the m - f nearest of i} x_j,    out = then(y_1, ..., y_m)

    It makes honest rows that differ because their data do alike before the rule looks for
    outliers. With f = 0 every y_i is the mean. Among equal distances the earlier row is nearer.

    ``then`` is the trimmed mean where none is given. Needs as many rows as ``then`` does.
    """

    def weights(self, points: Points, context: Context) -> tuple[torch.Tensor, int]:
        """1 / (m - f) for each of the nearest."""
        kept = len(points) - context.f
        squared = points.squared_distances()
        squared.fill_diagonal_(-1)  # a row is its own nearest, also among duplicates of it
        nearest = squared.argsort(dim=1, stable=True)[:, :kept]
        return torch.zeros_like(squared).scatter_(1, nearest, 1 / kept), context.own
