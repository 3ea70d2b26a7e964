"""The same samples for all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tidings.api import Dataset, Partition, partitions


@partitions.register("copies")
@dataclass(frozen=True)
class Copies(Partition):
    """Every node holds all training samples.

    The homogeneous case of theory, zeta = 0: all local objectives are the same, and only which
    batches are drawn differs. For methods whose guarantee is exact there alone.
    """

    disjoint: ClassVar[bool] = False

    def split(self, data: Dataset, nodes: int, rng: np.random.Generator) -> Sequence[np.ndarray]:
        """All samples, for each node."""
        return [np.arange(len(data))] * nodes
