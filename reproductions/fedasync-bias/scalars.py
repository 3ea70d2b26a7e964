"""Clients that each want one number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from tidings.api import LocalProblem, Problem


@dataclass(frozen=True)
class Scalars(Problem):
    """Client k = 1, 2, ... has ``f_k(x) = 1/2 |x - b_k 1|^2``; the server, node 0, has no data.

    ``centers`` are the b_k, and f is the mean over the clients. The ``copies`` coordinates of x are
    the same problem with noise of their own, of standard deviation ``noise``: their mean is where a
    method is, and how far they are apart is what noise does to it.
    """

    centers: tuple[float, ...]
    copies: int = 2
    noise: float = 0.0
    start: float = 0.0

    def local(self, node: int, nodes: int, seed: int) -> LocalProblem:
        """Node ``node``'s number; ValueError unless there is one for every client."""
        if len(self.centers) != nodes - 1:
            raise ValueError(f"{nodes - 1} clients need as many centers, got {len(self.centers)}")
        return Scalar(self, self.centers[node - 1] if node else 0.0)


class Scalar(LocalProblem):
    """One node's."""

    samples = 1

    def __init__(self, problem: Scalars, center: float) -> None:
        self.dim = problem.copies
        self._problem, self._center = problem, center

    def initial(self) -> torch.Tensor:
        """The same number in every coordinate."""
        return torch.full((self.dim,), self._problem.start)

    def gradient(self, x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """``x - b_k`` plus the noise."""
        noise = torch.from_numpy(self._problem.noise * rng.standard_normal(self.dim))
        return x - self._center + noise.float()

    def evaluate(self, x: torch.Tensor) -> Mapping[str, float]:
        """``point``, the mean of the coordinates, their ``variance``, and ``loss`` f(x)."""
        away = np.subtract.outer(np.array(self._problem.centers), x.double().numpy())
        return {
            "point": float(x.double().mean()),
            "variance": float(x.double().var()),
            "loss": 0.5 * float((away**2).mean()),
        }
