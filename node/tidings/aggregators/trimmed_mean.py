"""The coordinate-wise trimmed mean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from tidings.aggregators.columns import combine_sorted
from tidings.api import Aggregator, Context, aggregators


@aggregators.register("trimmed_mean")
@dataclass(frozen=True)
class TrimmedMean(Aggregator):
    """The coordinate-wise trimmed mean (Yin et al., ICML 2018, Definition 2).

    In every coordinate the f smallest and the f largest values are left out (the count that is
    trimmed is f itself, not a fraction of m)::

        out_k = (1 / (m - 2 f)) sum_{i = f+1}^{m-f} x_(i)k

    Needs m >= 2 f + 1; with f = 0 it is the mean.
    """

    f: int

    def __post_init__(self) -> None:
        if self.f < 0:
            raise ValueError(f"f must not be negative, got {self.f}")

    def combine(self, rows: torch.Tensor, context: Context) -> torch.Tensor:
        """The mean of order statistics f+1 to m-f of every coordinate."""
        kept = slice(context.f, len(rows) - context.f)
        return combine_sorted(rows, lambda columns: columns[:, kept].mean(axis=1, dtype=np.float64))
