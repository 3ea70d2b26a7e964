"""Pre-aggregators: what is done to the rows before a rule combines them."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch

from tidings.aggregators.gram import PointRule, Points, combine_points
from tidings.aggregators.trimmed_mean import TrimmedMean
from tidings.api import Aggregator, Context, LocalProblem


@dataclass(frozen=True)
class PreAggregator(PointRule):
    """Maps rows to rows, each a combination of the given ones, and hands them to ``then``.

    ``then`` gets the same f; the trimmed mean where none is given. Pre-aggregators can be chained,
    at the cost of one: all but coordinate-wise rules work on the products of the first rows.
    """

    f: int
    then: Aggregator | None = None

    def __post_init__(self) -> None:
        if self.f < 0:
            raise ValueError(f"f must not be negative, got {self.f}")
        if self.rule.bad_rows not in (0, self.f):
            raise ValueError(f"f is {self.f}, but that of 'then' is {self.rule.bad_rows}")
        object.__setattr__(self, "then", self.rule)

    @property
    def rule(self) -> Aggregator:
        """The rule that combines the new rows."""
        return self.then or TrimmedMean(self.f)

    def min_rows(self, f: int) -> int:
        """What ``then`` needs, and an honest majority."""
        return max(2 * f + 1, self.rule.min_rows(f))

    def check_problem(self, problem: LocalProblem) -> None:
        """What ``then`` needs of it."""
        self.rule.check_problem(problem)

    @abstractmethod
    def weights(self, points: Points, context: Context) -> tuple[torch.Tensor, int]:
        """(l, k) float64 weights that make l new points of the k given, and the own one's index."""

    def combine_points(self, points: Points, context: Context) -> torch.Tensor:
        """``then`` of the new points."""
        weights, own = self.weights(points, context)
        after = Context(own, context.f, context.rng, context.problem)
        return combine_points(self.rule, points.mixed(weights), after)


def clipped(norms: torch.Tensor, limit: float) -> torch.Tensor:
    """The diagonal (k, k) weights that shorten points of these norms to ``limit`` at most."""
    return torch.diag(torch.where(norms > limit, limit / norms, 1.0))
