"""Linear regression in clusters of nodes: a table whose rows come in natural groups."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from tidings.api import LocalProblem, Problem, problems
from tidings.problems.own_rows import OwnRows
from tidings.problems.seeding import generator


@problems.register("clustered_regression")
@dataclass(frozen=True)
class ClusteredRegression(Problem):
    """Least squares with one ground truth per cluster of nodes (after the synthetic experiments of
    Hallac, Leskovec & Boyd, KDD 2015, which classify).

    ``f_i(x) = |A_i x - y_i|^2 / (2 m)`` with a standard normal (m, d) ``A_i`` and ``y_i = A_i x_c +
    noise e_i``; x_c, standard normal, is common to a cluster. Nodes are dealt to clusters in order,
    node i to cluster ``floor(i clusters / nodes)``. With fewer rows than features a node cannot
    learn alone; who learns with the wrong ones learns nothing either.

    Each node is measured by itself: its ``loss`` is |A x - y|^2 / (2 t) on t test rows of its own,
    ``distance`` is |x - x_c|^2.
    """

    dim: int = 20
    #: rows per node, m
    samples: int = 15
    #: held-out rows per node, t
    test_samples: int = 100
    clusters: int = 2
    #: standard deviation of the noise in y
    noise: float = 0.3

    def __post_init__(self) -> None:
        """ValueError for counts below 1 and a negative noise."""
        if min(self.dim, self.samples, self.test_samples, self.clusters) < 1:
            raise ValueError("dim, samples, test_samples and clusters must be at least 1")
        if not self.noise >= 0:
            raise ValueError(f"noise must not be negative, got {self.noise:g}")

    def local(self, node: int, nodes: int, seed: int) -> LocalProblem:
        """Node ``node``'s rows; ValueError for more clusters than nodes."""
        if self.clusters > nodes:
            raise ValueError(f"{self.clusters} clusters of {nodes} nodes")
        return LocalRegression(self, node, node * self.clusters // nodes, seed)


class LocalRegression(OwnRows):
    """One node's rows, and the truth behind them."""

    def __init__(self, problem: ClusteredRegression, node: int, cluster: int, seed: int) -> None:
        self._truth = _truth(problem, cluster, seed)
        own = generator(seed, "clustered regression", node)
        train, test = (
            _rows(problem, self._truth, count, own)
            for count in (problem.samples, problem.test_samples)
        )
        super().__init__(train, test)

    def evaluate(self, x: torch.Tensor) -> Mapping[str, float]:
        """``loss`` on this node's test rows, ``distance`` |x - x_c|^2."""
        away = x.double() - self._truth
        return {**super().evaluate(x), "distance": float(away @ away)}


def _rows(
    problem: ClusteredRegression, truth: torch.Tensor, count: int, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """(count, d) features and (count,) targets, float64."""
    features = torch.from_numpy(rng.standard_normal((count, problem.dim))).clone()
    noise = torch.from_numpy(rng.standard_normal(count)).clone()
    return features, features @ truth + problem.noise * noise


@functools.lru_cache(maxsize=64)
def _truth(problem: ClusteredRegression, cluster: int, seed: int) -> torch.Tensor:
    """(d,) float64."""
    common = generator(seed, "clusters")
    return torch.from_numpy(common.standard_normal((cluster + 1, problem.dim))[-1]).clone()
