"""The covariance-bound agnostic filter."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tidings.aggregators.gram import PointRule, Points
from tidings.api import Context, aggregators


@aggregators.register("caf")
@dataclass(frozen=True)
class CAF(PointRule):
    """Covariance-bound agnostic filter (Allouah, Guerraoui & Stephan, ICML 2025).

    All rows start with weight c_i = 1. While sum_i c_i > m - 2 f::

        mu = sum_i c_i x_i / sum c
        lambda, v = top eigenpair of sum_i c_i (x_i - mu)(x_i - mu)^T / sum c
        tau_i = <v, x_i - mu>^2
        c_i <- c_i (1 - tau_i / max_j tau_j)

    and the result is the mu of the smallest lambda on the way. The maximum goes over rows that
    still have weight, so each step takes at least one of them to zero. It bounds the error by the
    largest eigenvalue of the honest covariance, not by its trace, and needs no bound on either.

    The eigenvector is exact, from an m x m matrix (one power step from a random vector, as is done
    elsewhere, often leaves the outliers in). Needs m >= 2 f + 1; with f = 0 it is the mean.
    """

    f: int

    def __post_init__(self) -> None:
        if self.f < 0:
            raise ValueError(f"f must not be negative, got {self.f}")

    def combine_points(self, points: Points, context: Context) -> torch.Tensor:
        """The weighted mean whose weighted covariance is the smallest seen."""
        count = len(points)
        shares = torch.ones(count, dtype=torch.float64)
        best, smallest = shares / count, float("inf")
        while float(shares.sum()) > count - 2 * context.f:
            mean = shares / shares.sum()
            roots = mean.sqrt()
            # the covariance has its eigenvalues, with v = sum_i roots_i u_i (x_i - mu)
            inner = roots[:, None] * points.products_around(mean) * roots[None, :]
            values, vectors = torch.linalg.eigh(inner)
            if float(values[-1]) < smallest:
                best, smallest = mean, float(values[-1])
            if not values[-1] > 0:
                break
            # <v, x_i - mu> = u_i sqrt(lambda) / roots_i, and only ratios count
            tau = torch.where(shares > 0, (vectors[:, -1] / roots).square(), 0.0)
            shares = shares * (1 - tau / tau.max())
        return points.combination(best)
