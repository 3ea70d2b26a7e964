"""The arithmetic mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from tidings.aggregators.columns import weighted
from tidings.api import Aggregator, Context, aggregators


@aggregators.register("mean")
@dataclass(frozen=True)
class Mean(Aggregator):
    """The arithmetic mean, what all other rules are compared with.

    ::

        out = (1/m) sum_i x_i

    Not robust: one bad row moves it anywhere, and a row with NaN or infinity, which the robust
    rules drop, goes into it and comes out of it.
    """

    robust: ClassVar[bool] = False

    def combine(self, rows: torch.Tensor, context: Context) -> torch.Tensor:
        """The mean of all rows."""
        return weighted(torch.full((len(rows),), 1 / len(rows), dtype=torch.float64), rows)
