"""Minimum-diameter averaging."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from tidings.aggregators.gram import PointRule, Points
from tidings.api import Context, aggregators


@aggregators.register("mda")
@dataclass(frozen=True)
class MDA(PointRule):
    """The mean of the tightest m - f rows (Rousseeuw 1985; El Mhamdi et al., NeurIPS 2021).

    ::

        S = argmin_{|S| = m - f} max_{i, j in S} |x_i - x_j|
        out = (1 / (m - f)) sum_{i in S} x_i

    Often several subsets have the smallest diameter; of these the one with the smallest sum of
    squared distances is taken, so that the order of the rows does not matter. Needs m >= 2 f + 1.

    The subsets are not gone through. A diameter D is possible if f rows cover all pairs that are
    farther apart than D, a vertex cover, which is found in time 2^f at worst however many rows
    there are (30 rows with f = 10 have 3 10^7 subsets and 2^10 branches).
    """

    f: int

    def __post_init__(self) -> None:
        if self.f < 0:
            raise ValueError(f"f must not be negative, got {self.f}")

    def combine_points(self, points: Points, context: Context) -> torch.Tensor:
        """The mean of the subset of the smallest diameter."""
        kept = tightest(points.squared_distances(), context.f)
        weights = torch.zeros(len(points), dtype=torch.float64)
        weights[kept] = 1 / len(kept)
        return points.combination(weights)


def tightest(squared: torch.Tensor, f: int) -> list[int]:
    """The m - f rows of the smallest diameter, then of the smallest sum of squared distances."""
    rows = range(len(squared))
    diameters = sorted(set(squared.flatten().tolist()))
    low, high = 0, len(diameters) - 1
    while low < high:
        middle = (low + high) // 2
        if next(_covers(_farther(squared, diameters[middle]), f), None) is None:
            low = middle + 1
        else:
            high = middle
    best: tuple[float, list[int]] | None = None
    for cover in _covers(_farther(squared, diameters[low]), f):
        kept = [i for i in rows if not cover >> i & 1]
        while len(kept) > len(squared) - f:  # among equal diameters a smaller cover may do
            spread = squared[kept][:, kept].sum(dim=1)
            del kept[int(spread.argmax())]
        total = float(squared[kept][:, kept].sum())
        if best is None or total < best[0]:
            best = total, kept
    assert best is not None
    return best[1]


def _farther(squared: torch.Tensor, limit: float) -> list[int]:
    """For each row, as a set of bits, the rows that lie farther from it than the limit."""
    return [sum(1 << j for j, far in enumerate(row) if far) for row in (squared > limit).tolist()]


def _covers(edges: list[int], budget: int) -> Iterator[int]:
    """Sets of at most ``budget`` rows, as bits, that touch every edge.

    All that contain no row needlessly: a row is in the set, or all its neighbours are.
    """
    degrees = [row.bit_count() for row in edges]
    highest = max(degrees)
    if highest == 0:
        yield 0
    elif sum(degrees) <= 2 * budget * highest:
        row = degrees.index(highest)
        for taken in (1 << row, edges[row]):
            if taken.bit_count() <= budget:
                rest = [0 if taken >> i & 1 else e & ~taken for i, e in enumerate(edges)]
                for cover in _covers(rest, budget - taken.bit_count()):
                    yield cover | taken
