"""Strongly convex quadratics with known constants."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from tidings.api import Constants, LocalProblem, Problem, Smoothness, problems
from tidings.problems.seeding import generator


@problems.register("quadratic")
@dataclass(frozen=True)
class Quadratic(Problem):
    """Quadratics ``f_i(x) = 1/2 (x - b_i)^T A_i (x - b_i)`` (the test function of most proofs).

    ``b_i = c + heterogeneity z_i`` with standard normal c, z_i. ``A_i = Q diag(lambda_i) Q^T``:
    eigenvalues ``mu (smoothness / mu)^u``, the smallest and the largest being exactly mu and
    smoothness on every node, so that the constants hold for each f_i and for the average. Of the
    uniform exponents u a part ``min(heterogeneity, 1)`` is the node's own, the rest common. Q is
    common: a random rotation (``dense``) or the identity (``diagonal``, d and not d^2 operations).

    With heterogeneity 0 all nodes are the same. Gradients carry normal noise of standard deviation
    ``noise`` in every coordinate, which is all that their rng is used for.
    """

    dim: int = 20
    mu: float = 1.0
    smoothness: float = 10.0
    heterogeneity: float = 1.0
    noise: float = 0.0
    structure: Literal["dense", "diagonal"] = "dense"

    def __post_init__(self) -> None:
        """ValueError unless dim >= 2, 0 < mu <= smoothness, and the rest is not negative."""
        if self.dim < 2:
            raise ValueError(f"dim must be at least 2, got {self.dim}")
        if not 0 < self.mu <= self.smoothness < np.inf:
            raise ValueError(f"need 0 < mu <= smoothness, got {self.mu} and {self.smoothness}")
        if not (self.heterogeneity >= 0 and self.noise >= 0):
            raise ValueError("heterogeneity and noise must not be negative")

    def local(self, node: int, nodes: int, seed: int) -> LocalProblem:
        """Node ``node``'s quadratic."""
        return LocalQuadratic(self, node, nodes, seed)


class LocalQuadratic(LocalProblem):
    """One node's quadratic, kept in the coordinates y = Q^T x in which it is diagonal."""

    def __init__(self, problem: Quadratic, node: int, nodes: int, seed: int) -> None:
        self.dim = problem.dim
        self.samples = 1
        self._noise = problem.noise
        self._nodes, self._constant = nodes, problem.smoothness
        self._rotation = _rotation(problem, seed)
        self._average = _average(problem, nodes, seed)
        self._eigenvalues, self._center = _diagonal(problem, node, seed)

    @property
    def constants(self) -> Constants:
        """mu and L as asked for, and the exact optimum."""
        return self._average.constants

    @property
    def smoothness(self) -> Smoothness:
        """L as asked for, of every f_i and of the average."""
        return Smoothness((self._constant,) * self._nodes, self._constant)

    def initial(self) -> torch.Tensor:
        """The origin."""
        return torch.zeros(self.dim)

    def gradient(self, x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """``A_i (x - b_i)``, computed in float64, plus the noise."""
        gradient = self._gradient(x)
        if self._noise > 0:
            gradient += self._noise * torch.from_numpy(rng.standard_normal(self.dim))
        return gradient.float()

    def full_gradient(self, x: torch.Tensor) -> torch.Tensor:
        """``A_i (x - b_i)``, without the noise."""
        return self._gradient(x).float()

    def _gradient(self, x: torch.Tensor) -> torch.Tensor:
        y = _rotated(self._rotation, x)
        gradient = self._eigenvalues * (y - self._center)
        return gradient if self._rotation is None else self._rotation @ gradient

    def minimizer(self, linear: torch.Tensor, ridge: float) -> torch.Tensor:
        """``(A_i + ridge I)^-1 (A_i b_i + linear)``."""
        y = self._eigenvalues * self._center + _rotated(self._rotation, linear)
        y = y / (self._eigenvalues + ridge)
        return y if self._rotation is None else self._rotation @ y

    def evaluate(self, x: torch.Tensor) -> Mapping[str, float]:
        """``loss`` f(x), ``suboptimality`` f(x) - f*, ``distance`` |x - x*|^2."""
        away = _rotated(self._rotation, x) - self._average.minimizer
        suboptimality = 0.5 * float(torch.sum(self._average.eigenvalues * away**2))
        return {
            "loss": self._average.constants.optimum_value + suboptimality,
            "suboptimality": suboptimality,
            "distance": float(torch.sum(away**2)),
        }


@dataclass(frozen=True)
class _Average:
    """The average objective in the coordinates in which it is diagonal, all (d,) float64."""

    eigenvalues: torch.Tensor
    minimizer: torch.Tensor
    constants: Constants


@functools.lru_cache(maxsize=4)
def _average(problem: Quadratic, nodes: int, seed: int) -> _Average:
    """Sums over all nodes, each node's part made and dropped in turn."""
    total = torch.zeros(problem.dim, dtype=torch.float64)
    weighted, squares = total.clone(), total.clone()
    for node in range(nodes):
        eigenvalues, center = _diagonal(problem, node, seed)
        total += eigenvalues
        weighted += eigenvalues * center
        squares += eigenvalues * center**2
    minimizer = weighted / total
    # sum_i lambda_i (y - b_i)^2 at its minimum, coordinate by coordinate; rounding may go below 0
    least = torch.clamp(squares - total * minimizer**2, min=0.0)
    rotation = _rotation(problem, seed)
    optimum = minimizer if rotation is None else rotation @ minimizer
    value = 0.5 * float(least.sum()) / nodes
    constants = Constants(problem.mu, problem.smoothness, optimum.float(), value)
    return _Average(total / nodes, minimizer, constants)


@functools.lru_cache(maxsize=4)
def _rotation(problem: Quadratic, seed: int) -> torch.Tensor | None:
    """A uniformly random (d, d) rotation, or None where the matrices are diagonal."""
    if problem.structure == "diagonal":
        return None
    shape = (problem.dim, problem.dim)
    normal = torch.from_numpy(generator(seed, "rotation").standard_normal(shape)).clone()
    q, r = torch.linalg.qr(normal)
    rotation: torch.Tensor = q * torch.sign(torch.diagonal(r))  # only so is it uniform
    return rotation


def _rotated(rotation: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor:
    """``Q^T x`` in float64."""
    return x.double() if rotation is None else rotation.T @ x.double()


def _diagonal(problem: Quadratic, node: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Node ``node``'s eigenvalues and, in the same coordinates, its minimiser; (d,) float64."""
    common, own = generator(seed, "quadratic"), generator(seed, "quadratic", node)
    part = min(problem.heterogeneity, 1.0)
    level = (1 - part) * common.uniform(size=problem.dim) + part * own.uniform(size=problem.dim)
    level[0], level[1] = 0.0, 1.0
    eigenvalues = problem.mu * (problem.smoothness / problem.mu) ** level
    center = common.standard_normal(problem.dim)
    center = center + problem.heterogeneity * own.standard_normal(problem.dim)
    # normal vectors are normal in rotated coordinates too, so b_i itself is never needed
    return torch.from_numpy(eigenvalues).clone(), torch.from_numpy(center).clone()
