"""Samples dealt out at random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tidings.api import Dataset, Partition, partitions
from tidings.partitions.shares import even_shares


@partitions.register("iid")
@dataclass(frozen=True)
class IID(Partition):
    """A uniformly random split into shares of equal size, up to one sample."""

    def split(self, data: Dataset, nodes: int, rng: np.random.Generator) -> Sequence[np.ndarray]:
        """Sorted shares; ValueError where there are fewer samples than nodes."""
        return even_shares(data, nodes, rng, self.kind)
