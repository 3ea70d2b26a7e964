"""Heterogeneous quadratics with known matrices, and mixing matrices from their formulas.

What the oracles need, written here from the formulas and in float64: no code of the package.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from tidings.api import Constants, LocalProblem, Problem

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Bowls(Problem):
    """``f_i(x) = 1/2 (x - b_i)^T A_i (x - b_i)``, eigenvalues of A_i from mu to L, b_i apart."""

    dim: int = 6
    mu: float = 1.0
    smoothness: float = 10.0
    apart: float = 1.0

    def local(self, node: int, nodes: int, seed: int) -> LocalProblem:
        return Bowl(self, node, nodes, seed)

    def matrices(self, nodes: int, seed: int = 1) -> tuple[Matrix, Matrix]:
        """A ((n, d, d)) and b ((n, d)) of all nodes."""
        return _matrices(self, nodes, seed)

    def optimum(self, nodes: int, seed: int = 1, weights: Iterable[float] | None = None) -> Matrix:
        """The minimiser of the (weighted) sum of all, (d,)."""
        a, b = self.matrices(nodes, seed)
        w = np.ones(nodes) if weights is None else np.array(list(weights), dtype=np.float64)
        total = np.einsum("i,ijk->jk", w, a)
        return np.linalg.solve(total, np.einsum("i,ijk,ik->j", w, a, b))

    def gradients(self, x: Matrix, seed: int = 1) -> Matrix:
        """``A_i (x_i - b_i)`` of the rows of x ((n, d)) as rows."""
        a, b = self.matrices(len(x), seed)
        return np.einsum("ijk,ik->ij", a, x - b)


@cache
def _matrices(bowls: Bowls, nodes: int, seed: int) -> tuple[Matrix, Matrix]:
    rng = np.random.default_rng([seed, nodes, bowls.dim])
    a = []
    for _ in range(nodes):
        q, _ = np.linalg.qr(rng.standard_normal((bowls.dim, bowls.dim)))
        spectrum = rng.uniform(bowls.mu, bowls.smoothness, bowls.dim)
        spectrum[:2] = bowls.mu, bowls.smoothness
        a.append(q @ np.diag(spectrum) @ q.T)
    b = rng.standard_normal(bowls.dim) + bowls.apart * rng.standard_normal((nodes, bowls.dim))
    return np.stack(a), b


class Bowl(LocalProblem):
    """One node's; node i stands for i + 1 samples."""

    def __init__(self, bowls: Bowls, node: int, nodes: int, seed: int) -> None:
        a, b = bowls.matrices(nodes, seed)
        self.dim = bowls.dim
        self.samples = node + 1
        self._a, self._b = a[node], b[node]
        self._optimum = bowls.optimum(nodes, seed)
        optimum = torch.from_numpy(self._optimum).float()
        self._constants = Constants(bowls.mu, bowls.smoothness, optimum, 0.0)

    @property
    def constants(self) -> Constants:
        return self._constants

    def initial(self) -> torch.Tensor:
        return torch.zeros(self.dim)

    def gradient(self, x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        return torch.from_numpy(self._a @ (x.double().numpy() - self._b)).float()

    def full_gradient(self, x: torch.Tensor) -> torch.Tensor:
        return self.gradient(x, np.random.default_rng())

    def evaluate(self, x: torch.Tensor) -> Mapping[str, float]:
        return {"distance": float(((x.double().numpy() - self._optimum) ** 2).sum())}


# -- mixing matrices -------------------------------------------------------------------------------


def ring(nodes: int) -> Matrix:
    """1/3 for each neighbour and oneself."""
    eye = np.eye(nodes)
    return (eye + np.roll(eye, 1, axis=0) + np.roll(eye, -1, axis=0)) / 3


def line(nodes: int) -> Matrix:
    """Metropolis-Hastings on a path: 1 / (1 + max(deg_i, deg_j)), the rest to oneself."""
    w = np.zeros((nodes, nodes))
    degree = [1 if i in (0, nodes - 1) else 2 for i in range(nodes)]
    for i in range(nodes - 1):
        w[i, i + 1] = w[i + 1, i] = 1 / (1 + max(degree[i], degree[i + 1]))
    return w + np.diag(1 - w.sum(axis=1))


def one_peer_exponential(nodes: int, round_: int) -> Matrix:
    """Half to oneself, half to the node that is 2^k before, k = round mod log2 n."""
    hop = 2 ** (round_ % int(np.ceil(np.log2(nodes))))
    return (np.eye(nodes) + np.roll(np.eye(nodes), -hop, axis=1)) / 2
