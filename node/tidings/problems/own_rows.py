"""Linear regression on rows of a node's own, by which it is measured too."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from tidings.api import LocalProblem
from tidings.problems.least_squares import regularised


class OwnRows(LocalProblem):
    """``f(x) = |A x - y|^2 / (2 m)``; ``loss`` is the same on t test rows of the node's own.

    ``train`` and ``test`` are (m, d) features with (m,) targets and (t, d) with (t,), float64.
    """

    def __init__(
        self, train: tuple[torch.Tensor, torch.Tensor], test: tuple[torch.Tensor, torch.Tensor]
    ) -> None:
        self._features, self._targets = train
        self._test = test
        self.samples, self.dim = self._features.shape

    def initial(self) -> torch.Tensor:
        """The origin."""
        return torch.zeros(self.dim)

    def gradient(self, x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """That over all rows."""
        return self.full_gradient(x)

    def full_gradient(self, x: torch.Tensor) -> torch.Tensor:
        """``A^T (A x - y) / m`` over all rows, computed in float64."""
        residuals = self._features @ x.double() - self._targets
        return (self._features.T @ residuals / self.samples).float()

    def minimizer(self, linear: torch.Tensor, ridge: float) -> torch.Tensor:
        """``(A^T A / m + ridge I)^-1 (A^T y / m + linear)``; ValueError where there is none."""
        return regularised(self._features, self._targets, linear, ridge)

    def evaluate(self, x: torch.Tensor) -> Mapping[str, float]:
        """``loss`` on this node's test rows."""
        features, targets = self._test
        residuals = features @ x.double() - targets
        return {"loss": 0.5 * float(residuals @ residuals) / len(targets)}
