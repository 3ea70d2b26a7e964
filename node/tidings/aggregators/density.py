"""The density filter."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch.nn.functional import normalize

from tidings.aggregators.gram import Points
from tidings.aggregators.mean import Mean
from tidings.api import Aggregator, Context, LocalProblem, aggregators

Metric = Literal["cosine", "euclidean", "merged"]


@aggregators.register("density")
@dataclass(frozen=True)
class Density(Aggregator):
    """Only rows in a dense place go into another rule (CosDen, EuDen, MgDen; Gong et al., 2022).

    The clustering filter of AGRAMPLIFIER (ACSAC 2022, Algorithm 2), without the amplifier: control
    of ``agrmp`` and ``agrxai``, which decide by other vectors and are the same otherwise. Updates
    are scaled to length one; with their similarities C_ij::

        S_i = sum of the ``neighbors`` largest C_ij,     k > m / 2
        out = then(x_i / |x_i|  for the m - f rows of the largest S_i)

    ``cosine`` takes the cosine, ``euclidean`` the distance (and the smallest sums), ``merged`` the
    rows that both would keep. ``score: row`` is the paper's S_i; the authors' code adds up the
    whole k x k ``block`` of similarities among i and its k - 1 nearest.

    ``then`` is the mean, as in the paper; its own f says how many the filter may have missed. For
    updates and gradients: ``normalize: false`` leaves the lengths, as models need.
    """

    f: int
    then: Aggregator | None = None
    metric: Metric = field(default="cosine", kw_only=True)
    #: k; null for m // 2 + 1
    neighbors: int | None = field(default=None, kw_only=True)
    score: Literal["row", "block"] = field(default="row", kw_only=True)
    normalize: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        if self.f < 0:
            raise ValueError(f"f must not be negative, got {self.f}")
        if self.neighbors is not None and self.neighbors < 1:
            raise ValueError(f"neighbors must be at least 1, got {self.neighbors}")
        object.__setattr__(self, "then", self.rule)

    @property
    def rule(self) -> Aggregator:
        """The rule that combines what is kept."""
        return self.then or Mean()

    def min_rows(self, f: int) -> int:
        """An honest majority, and enough for ``then`` without the f that are filtered out."""
        return max(2 * f + 1, f + self.rule.min_rows(self.rule.bad_rows))

    def check_problem(self, problem: LocalProblem) -> None:
        """What ``then`` needs of it."""
        self.rule.check_problem(problem)

    def amplified(self, rows: torch.Tensor, context: Context) -> torch.Tensor:
        """The vectors that decide, (m, l) float32; here the rows themselves."""
        return rows

    def combine(self, rows: torch.Tensor, context: Context) -> torch.Tensor:
        """``then`` of the rows that lie densely."""
        units = normalize(rows.double(), dim=1).float() if self.normalize else rows
        kept = self.whitelist(self.amplified(units, context), context.f)
        own = kept.index(context.own) if context.own in kept else 0
        return self.rule(units[kept], own, rng=context.rng, problem=context.problem)

    def whitelist(self, vectors: torch.Tensor, f: int) -> list[int]:
        """The indices of the m - f (``merged``: at least m - 2 f) densest of (m, l) vectors."""
        points, kept = Points.of(vectors), set(range(len(vectors)))
        if self.metric != "euclidean":
            kept &= self._densest(_cosines(points), f)
        if self.metric != "cosine":
            kept &= self._densest(-points.squared_distances().sqrt(), f)
        return sorted(kept)

    def _densest(self, similarity: torch.Tensor, f: int) -> set[int]:
        count = len(similarity)
        k = min(count, count // 2 + 1 if self.neighbors is None else self.neighbors)
        nearest, order = similarity.sort(dim=1, descending=True, stable=True)
        if self.score == "row":
            scores = nearest[:, :k].sum(dim=1)
        else:
            blocks = [similarity[near][:, near].sum() for near in order[:, :k]]
            scores = torch.stack(blocks)
        return set(scores.argsort(descending=True, stable=True)[: count - f].tolist())


def _cosines(points: Points) -> torch.Tensor:
    """The cosines between all points, seen from the origin: (k, k) float64; 0 for zero vectors."""
    products = points.products_around(torch.zeros(len(points), dtype=torch.float64))
    lengths = products.diagonal().clamp(min=1e-300).sqrt()
    return (products / lengths[:, None] / lengths[None, :]).fill_diagonal_(1)
