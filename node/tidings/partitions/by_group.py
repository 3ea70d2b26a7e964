"""Natural groups: whole writers, books or topics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tidings.api import Dataset, Partition, partitions


@partitions.register("by_group")
@dataclass(frozen=True)
class ByGroup(Partition):
    """Whole natural groups to nodes (the split of LEAF, Caldas et al., 2018), sizes balanced.

    Groups go from the largest to the smallest, each to the node that has the fewest samples so far
    (longest processing time first, Graham, 1969). The largest share is therefore at most the mean
    share plus the largest group. Groups of equal size are taken in random order.
    """

    def split(self, data: Dataset, nodes: int, rng: np.random.Generator) -> Sequence[np.ndarray]:
        """Sorted shares; ValueError without groups, or with fewer groups than nodes."""
        if data.groups is None:
            raise ValueError(f"'{self.kind}' needs natural groups, this data set has none")
        names, sizes = np.unique(data.groups, return_counts=True)
        if len(names) < nodes:
            raise ValueError(f"'{self.kind}': {len(names)} groups are too few for {nodes} nodes")
        shuffled = rng.permutation(len(names))
        owners = np.empty(len(names), np.int64)
        loads = np.zeros(nodes, np.int64)
        for group in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
            owners[group] = loads.argmin()
            loads[owners[group]] += sizes[group]
        owner_of_sample = owners[np.searchsorted(names, data.groups)]
        return [np.flatnonzero(owner_of_sample == node) for node in range(nodes)]
