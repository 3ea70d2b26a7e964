"""Nearest-neighbour mixing."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tidings.aggregators.columns import weighted
from tidings.aggregators.gram import centred_gram, squared_distances
from tidings.aggregators.trimmed_mean import TrimmedMean
from tidings.api import Aggregator, aggregators


@aggregators.register("nnm")
@dataclass(frozen=True)
class NNM(Aggregator):
    """Nearest-neighbour mixing before another rule (Allouah et al., AISTATS 2023).

    Every row is replaced by the mean of the m - f rows nearest to it, itself included, and the
    result goes into the rule ``then``, which gets the same f::

        y_i = (1 / (m - f)) sum_{j in the m - f nearest of i} x_j,    out = then(y_1, ..., y_m)

    It makes honest rows that differ because their data do alike before the rule looks for
    outliers. With f = 0 every y_i is the mean. Among equal distances the earlier row is nearer.

    ``then`` is the trimmed mean where none is given. Needs as many rows as ``then`` does.
    """

    f: int
    then: Aggregator | None = None

    def __post_init__(self) -> None:
        if self.f < 0:
            raise ValueError(f"f must not be negative, got {self.f}")
        if self.rule.bad_rows not in (0, self.f):
            raise ValueError(f"f is {self.f}, but that of 'then' is {self.rule.bad_rows}")
        object.__setattr__(self, "then", self.rule)

    @property
    def rule(self) -> Aggregator:
        """The rule that combines the mixed rows."""
        return self.then or TrimmedMean(self.f)

    def min_rows(self, f: int) -> int:
        """What ``then`` needs, and enough for an honest majority among the nearest."""
        return max(2 * f + 1, self.rule.min_rows(f))

    def combine(self, rows: torch.Tensor, own: int, f: int) -> torch.Tensor:
        """``then`` of the mixed rows."""
        squared = squared_distances(centred_gram(rows))
        squared.fill_diagonal_(-1)  # a row is its own nearest, also among duplicates of it
        nearest = squared.argsort(dim=1, stable=True)[:, : len(rows) - f]
        mixing = torch.zeros_like(squared).scatter_(1, nearest, 1 / (len(rows) - f))
        return self.rule.combine(weighted(mixing, rows), own, f)
