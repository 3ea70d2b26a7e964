"""Least squares whose features are known to a few nodes each."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from tidings.api import LocalProblem, Problem, Smoothness, problems
from tidings.problems.seeding import generator


@problems.register("rare_features")
@dataclass(frozen=True)
class RareFeatures(Problem):
    """Sparse least squares with a smoothness of its own on every node (after the synthetic
    experiments of Richtarik, Gasanov & Burlachenko, "Error Feedback Shines when Features are
    Rare", 2023, and "Error Feedback Reloaded", ICLR 2024).

    ``f_i(x) = |A_i x - y_i|^2 / (2 m) + l2/2 |x|^2``. Every feature is held by ``holders`` nodes,
    drawn at random; the columns of A_i for others are 0. The rest of A_i is standard normal, then
    A_i is scaled so that the largest eigenvalue of A_i^T A_i / m is 1, on node 0 ``outlier``.
    ``y_i = A_i c + noise e_i`` with a common standard normal c.

    The more of an outlier node 0 is, the further apart are the quadratic and the arithmetic mean
    of the L_i, up to a factor sqrt(n).
    """

    dim: int = 20
    #: rows per node, m
    samples: int = 12
    #: nodes that hold a feature
    holders: int = 2
    #: how many times rougher node 0 is than the others
    outlier: float = 50.0
    #: standard deviation of the noise in y
    noise: float = 0.5
    l2: float = 0.1

    def __post_init__(self) -> None:
        """ValueError for counts and sizes that are not positive."""
        if min(self.dim, self.samples, self.holders) < 1:
            raise ValueError("dim, samples and holders must be at least 1")
        if not (self.outlier > 0 and self.noise >= 0 and self.l2 > 0):
            raise ValueError("outlier and l2 must be positive, noise not negative")

    def local(self, node: int, nodes: int, seed: int) -> LocalProblem:
        """Node ``node``'s rows."""
        if self.holders > nodes:
            raise ValueError(f"{self.holders} holders of a feature among {nodes} nodes")
        return LocalRareFeatures(self, node, nodes, seed)


class LocalRareFeatures(LocalProblem):
    """One node's quadratic."""

    def __init__(self, problem: RareFeatures, node: int, nodes: int, seed: int) -> None:
        self.dim = problem.dim
        self.samples = problem.samples
        self._all = _quadratics(problem, nodes, seed)
        self._hessian, self._linear = self._all.hessians[node], self._all.linears[node]

    @property
    def smoothness(self) -> Smoothness:
        """The largest eigenvalue of every node's Hessian, and of the average one."""
        return self._all.smoothness

    def initial(self) -> torch.Tensor:
        """The origin."""
        return torch.zeros(self.dim)

    def gradient(self, x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """The full gradient, computed in float64."""
        return (self._hessian @ x.double() - self._linear).float()

    def evaluate(self, x: torch.Tensor) -> Mapping[str, float]:
        """``loss`` f(x), ``suboptimality`` f(x) - f* and ``gradient`` |grad f(x)|^2."""
        away = x.double() - self._all.minimizer
        gradient = self._all.hessian @ away
        suboptimality = 0.5 * float(away @ gradient)
        return {
            "loss": self._all.value + suboptimality,
            "suboptimality": suboptimality,
            "gradient": float(gradient @ gradient),
        }


@dataclass(frozen=True)
class _Quadratics:
    """``f_i(x) = x^T H_i x / 2 - l_i^T x + const`` of all nodes, and their average."""

    hessians: torch.Tensor
    linears: torch.Tensor
    hessian: torch.Tensor
    minimizer: torch.Tensor
    value: float
    smoothness: Smoothness


@functools.lru_cache(maxsize=4)
def _quadratics(problem: RareFeatures, nodes: int, seed: int) -> _Quadratics:
    common = generator(seed, "rare features")
    truth = torch.from_numpy(common.standard_normal(problem.dim)).clone()
    held = np.zeros((nodes, problem.dim))
    for feature in range(problem.dim):
        held[common.choice(nodes, problem.holders, replace=False), feature] = 1.0
    ridge = problem.l2 * torch.eye(problem.dim, dtype=torch.float64)
    hessians, linears, constant = [], [], 0.0
    for node in range(nodes):
        own = generator(seed, "rare features", node)
        rows = own.standard_normal((problem.samples, problem.dim)) * held[node]
        features = torch.from_numpy(rows).clone() / problem.samples**0.5
        norm = float(torch.linalg.matrix_norm(features, ord=2))
        if norm > 0:
            features *= (problem.outlier if node == 0 else 1.0) ** 0.5 / norm
        noise = torch.from_numpy(own.standard_normal(problem.samples)).clone()
        targets = features @ truth + problem.noise / problem.samples**0.5 * noise
        hessians.append(features.T @ features + ridge)
        linears.append(features.T @ targets)
        constant += 0.5 * float(targets @ targets) / nodes
    stacked, linear = torch.stack(hessians), torch.stack(linears)
    hessian = stacked.mean(dim=0)
    minimizer = torch.linalg.solve(hessian, linear.mean(dim=0))
    value = constant - 0.5 * float(linear.mean(dim=0) @ minimizer)
    local = tuple(float(torch.linalg.eigvalsh(one)[-1]) for one in stacked)
    average = float(torch.linalg.eigvalsh(hessian)[-1])
    return _Quadratics(stacked, linear, hessian, minimizer, value, Smoothness(local, average))
