"""Distances between rows, from one pass over them: the base of all rules that need distances.

With the products of all pairs of rows, every distance between rows and weighted means of rows is a
few operations on m numbers. So a rule iterates as often as it likes without touching the d columns,
and a chain of rules (clip, then mix, then choose) needs one such pass at its start and one at its
end.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch

from tidings.aggregators.columns import blocks, weighted
from tidings.api import Aggregator, Context


@dataclass(frozen=True)
class Points:
    """Points that are combinations of the same rows, and all products between them.

    The origin is one of the points, the last, so that what a combination's weights lack to 1 lies
    there: a row that is clipped to s times its length is s of that row and 1 - s of the origin.
    """

    #: the rows that all is made of: (m, d) float32
    sources: torch.Tensor
    #: <p_i - c, p_j - c> for the k points and the origin: (k + 1, k + 1) float64, c any centre
    products: torch.Tensor
    #: what of each row is in a point: (k, m) float64; None where the points are the rows
    mixing: torch.Tensor | None = None

    @classmethod
    def of(cls, rows: torch.Tensor) -> Points:
        """The rows ((m, d) float32) as points; products are accumulated in float64.

        Models lie close together and far from the origin, so they are centred first, or the offset
        would eat the digits of the distances. The centre c is the row of the smallest norm: it is
        no farther out than any honest row, whereas one huge row would carry a mean away with it.
        """
        # row by row, for over a dimension torch takes ten times as long
        norms = [float(torch.linalg.vector_norm(row, dtype=torch.float64)) for row in rows]
        centre = rows[norms.index(min(norms))]
        count = len(rows)
        products = torch.zeros(count + 1, count + 1, dtype=torch.float64)
        for block in blocks(rows):
            middle = centre[block].double()
            part = torch.empty(count + 1, len(middle), dtype=torch.float64)
            torch.sub(rows[:, block], middle, out=part[:count])
            torch.neg(middle, out=part[count])
            products.addmm_(part, part.T)
        return cls(rows, products)

    def __len__(self) -> int:
        return len(self.products) - 1

    def squared_distances(self) -> torch.Tensor:
        """|p_i - p_j|^2, (k, k) float64, exactly zero on the diagonal."""
        products = self.products[:-1, :-1]
        norms = products.diagonal()
        squared = (norms[:, None] + norms[None, :] - 2 * products).clamp_(min=0)
        return squared.fill_diagonal_(0)

    def norms(self) -> torch.Tensor:
        """|p_i|: (k,) float64."""
        return self.distances_to(torch.zeros(len(self), dtype=torch.float64))

    def products_around(self, weights: torch.Tensor) -> torch.Tensor:
        """<p_i - z, p_j - z> for z = sum_j w_j p_j: (k, k) float64."""
        full = _affine(weights[None])[0]
        to_z = self.products @ full
        around = self.products - to_z[:, None] - to_z[None, :] + full @ to_z
        return around[:-1, :-1]

    def distances_to(self, weights: torch.Tensor) -> torch.Tensor:
        """|p_i - z| for z = sum_j w_j p_j with (k,) float64 weights: (k,) float64."""
        full = _affine(weights[None])[0]
        to_z = self.products @ full
        squared = self.products.diagonal() - 2 * to_z + full @ to_z
        return squared[:-1].clamp_(min=0).sqrt_()

    def mixed(self, weights: torch.Tensor) -> Points:
        """The points sum_j W_ij p_j for (l, k) float64 weights."""
        last = torch.zeros(1, len(self) + 1, dtype=torch.float64)
        last[0, -1] = 1
        full = torch.cat([_affine(weights), last])
        mixing = weights if self.mixing is None else weights @ self.mixing
        return Points(self.sources, full @ self.products @ full.T, mixing)

    def rows(self) -> torch.Tensor:
        """The points themselves: (k, d) float32, not to be changed."""
        return self.sources if self.mixing is None else weighted(self.mixing, self.sources)

    def combination(self, weights: torch.Tensor) -> torch.Tensor:
        """sum_j w_j p_j for (k,) float64 weights: a new (d,) float32 tensor."""
        shares = weights if self.mixing is None else weights @ self.mixing
        return weighted(shares, self.sources)

    def point(self, index: int) -> torch.Tensor:
        """One of the points, as a new (d,) float32 tensor."""
        weights = torch.zeros(len(self), dtype=torch.float64)
        weights[index] = 1
        return self.combination(weights)


def _affine(weights: torch.Tensor) -> torch.Tensor:
    """(l, k) weights with what they lack to 1 as one more column, for the origin."""
    return torch.cat([weights, 1 - weights.sum(dim=1, keepdim=True)], dim=1)


class PointRule(Aggregator):
    """A rule that needs no more than the products between the rows."""

    @abstractmethod
    def combine_points(self, points: Points, context: Context) -> torch.Tensor:
        """As :meth:`combine`, on points whose products are known."""

    def combine(self, rows: torch.Tensor, context: Context) -> torch.Tensor:
        """The rule on rows, after one pass over them for their products."""
        return self.combine_points(Points.of(rows), context)


def combine_points(rule: Aggregator, points: Points, context: Context) -> torch.Tensor:
    """Any rule on points: on their products where these are all it needs, else on the rows."""
    if isinstance(rule, PointRule):
        return rule.combine_points(points, context)
    return rule.combine(points.rows(), context)
