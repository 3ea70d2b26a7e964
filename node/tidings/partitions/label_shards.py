"""Label skew by shards of the sorted data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tidings.api import Dataset, Partition, partitions
from tidings.partitions.shares import check_enough, class_labels


@partitions.register("label_shards")
@dataclass(frozen=True)
class LabelShards(Partition):
    """Shards of label-sorted data (McMahan et al., AISTATS 2017, section 3).

    Samples are sorted by label and cut into ``nodes * shards_per_node`` equal shards, of which each
    node gets ``shards_per_node`` at random. With 2 shards and not fewer shards than classes, most
    nodes see two classes.
    """

    shards_per_node: int = 2

    def __post_init__(self) -> None:
        """ValueError for fewer than one shard."""
        if self.shards_per_node < 1:
            raise ValueError(f"shards_per_node must be at least 1, got {self.shards_per_node}")

    def split(self, data: Dataset, nodes: int, rng: np.random.Generator) -> Sequence[np.ndarray]:
        """Sorted shares; ValueError without class labels, or with fewer samples than shards."""
        labels = class_labels(data, self.kind)
        check_enough(data, nodes, self.shards_per_node, self.kind)
        shuffled = rng.permutation(len(data))  # so that shards of one class are random
        by_label = shuffled[np.argsort(labels[shuffled], kind="stable")]
        shards = np.array_split(by_label, nodes * self.shards_per_node)
        dealt = rng.permutation(len(shards)).reshape(nodes, self.shards_per_node)
        return [np.sort(np.concatenate([shards[k] for k in own])) for own in dealt]
