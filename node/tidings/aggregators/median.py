"""The coordinate-wise median."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from tidings.aggregators.columns import combine_sorted
from tidings.api import Aggregator, Context, aggregators


@aggregators.register("median")
@dataclass(frozen=True)
class Median(Aggregator):
    """The coordinate-wise median (Yin et al., ICML 2018, Definition 1).

    ::

        out_k = med{ x_1k, ..., x_mk }

    With an even number of rows the mean of the two in the middle (not the lower one, which is what
    ``torch.median`` returns). It withstands any f < m / 2; ``f`` only declares how many it must.
    """

    f: int = 0

    def __post_init__(self) -> None:
        if self.f < 0:
            raise ValueError(f"f must not be negative, got {self.f}")

    def combine(self, rows: torch.Tensor, context: Context) -> torch.Tensor:
        """The median of every coordinate."""
        low, high = (len(rows) - 1) // 2, len(rows) // 2
        # in float64 the sum of two float32 can neither overflow nor lose the last bit
        return combine_sorted(
            rows, lambda columns: (columns[:, low].astype(np.float64) + columns[:, high]) / 2
        )
