"""Shares of very different sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tidings.api import Dataset, Partition, partitions
from tidings.partitions.shares import check_enough, check_skew, cut, fill_up


@partitions.register("quantity_skew")
@dataclass(frozen=True)
class QuantitySkew(Partition):
    """Dirichlet sizes (Li, Diao, Chen, He, ICDE 2022).

    Samples are dealt out at random in shares of sizes ``p N`` with ``p ~ Dirichlet(alpha, ...,
    alpha)``. The squared coefficient of variation of the sizes is ``(n-1) / (n alpha + 1)`` in
    expectation. Nodes below ``min_samples`` get the missing ones from the largest shares.
    """

    alpha: float = 0.5
    #: samples that every node has at least
    min_samples: int = 8

    def __post_init__(self) -> None:
        """ValueError for alpha <= 0 or min_samples < 1."""
        check_skew(self.alpha, self.min_samples)

    def split(self, data: Dataset, nodes: int, rng: np.random.Generator) -> Sequence[np.ndarray]:
        """Sorted shares; ValueError where the samples are too few for the nodes."""
        check_enough(data, nodes, self.min_samples, self.kind)
        proportions = rng.dirichlet(np.full(nodes, self.alpha))
        shares = cut(rng.permutation(len(data)), proportions)
        return fill_up(shares, self.min_samples, rng)
