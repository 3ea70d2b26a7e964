"""Bucketing."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from tidings.aggregators.gram import Points
from tidings.aggregators.pre import PreAggregator
from tidings.api import Context, aggregators


@aggregators.register("bucketing")
@dataclass(frozen=True)
class Bucketing(PreAggregator):
    """Means of s random rows before another rule (Karimireddy, He & Jaggi, ICLR 2022, Algorithm 1).

    With a new random permutation pi in every call::

        y_b = mean of x_pi(i) for i = (b-1) s + 1 .. min(b s, m)
        out = then(y_1, ..., y_ceil(m/s))

    Bucket means differ less among honest nodes whose data differ, and f bad rows spoil at most f
    buckets. So ``then`` needs ceil(m / s) rows enough for the same f: f bad ones among m / s.

    ``then`` is the trimmed mean where none is given. It draws, from the stream "aggregation".
    """

    s: int = field(default=2, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.s < 1:
            raise ValueError(f"s must be at least 1, got {self.s}")

    def min_rows(self, f: int) -> int:
        """Such that there are as many buckets as ``then`` needs."""
        return self.s * (super().min_rows(f) - 1) + 1

    def weights(self, points: Points, context: Context) -> tuple[torch.Tensor, int]:
        """1 / (size of the bucket) for each row in it."""
        if context.rng is None:
            raise ValueError("bucketing draws a permutation: call it with an rng")
        count = len(points)
        order = context.rng.permutation(count).tolist()
        weights = torch.zeros(-(-count // self.s), count, dtype=torch.float64)
        for place, row in enumerate(order):
            weights[place // self.s, row] = 1
        weights /= weights.sum(dim=1, keepdim=True)
        return weights, order.index(context.own) // self.s
