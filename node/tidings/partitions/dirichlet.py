"""Label skew with Dirichlet proportions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tidings.api import Dataset, Partition, partitions
from tidings.partitions.shares import check_enough, check_skew, class_labels, cut, fill_up

#: draws of the whole split before samples are moved by hand
_DRAWS = 10


@partitions.register("dirichlet")
@dataclass(frozen=True)
class Dirichlet(Partition):
    """Dirichlet label skew (Yurochkin et al., ICML 2019; Hsu et al., 2019, for the other form).

    For each class the shares of the nodes are drawn as ``p ~ Dirichlet(alpha, ..., alpha)``: alpha
    to infinity is the class mix of the whole on every node, alpha to 0 puts each class on a single
    node. Sizes differ as well; in the form of Hsu et al., where each node draws its class mix, they
    do not. The split is redrawn while a node has fewer than ``min_samples``, ten times at most;
    then the missing samples are moved from the largest shares.
    """

    alpha: float = 0.5
    #: samples that every node has at least
    min_samples: int = 8

    def __post_init__(self) -> None:
        """ValueError for alpha <= 0 or min_samples < 1."""
        check_skew(self.alpha, self.min_samples)

    def split(self, data: Dataset, nodes: int, rng: np.random.Generator) -> Sequence[np.ndarray]:
        """Sorted shares; ValueError without class labels, or where the samples are too few."""
        labels = class_labels(data, self.kind)
        check_enough(data, nodes, self.min_samples, self.kind)
        classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]
        for _ in range(_DRAWS):
            shares = self._draw(classes, nodes, rng)
            if min(len(share) for share in shares) >= self.min_samples:
                break
        return fill_up(shares, self.min_samples, rng)

    def _draw(
        self, classes: list[np.ndarray], nodes: int, rng: np.random.Generator
    ) -> list[np.ndarray]:
        pieces = [
            cut(rng.permutation(members), rng.dirichlet(np.full(nodes, self.alpha)))
            for members in classes
        ]
        return [np.concatenate(share) for share in zip(*pieces, strict=True)]
