"""Linear regression on synthetic data that differ from node to node."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from tidings.api import Constants, LocalProblem, Problem, Smoothness, problems
from tidings.problems.batches import Batches, Sampling, check_batch_size
from tidings.problems.seeding import generator


@problems.register("least_squares")
@dataclass(frozen=True)
class LeastSquares(Problem):
    """Least squares ``f_i(x) = |A_i x - y_i|^2 / (2 m)`` on Gaussian data (textbook model).

    ``A_i = (1 + scale_spread i) G_i`` with a standard normal (m, d) ``G_i`` on node i = 0, 1, ...,
    so that later nodes have the larger curvature; ``y_i = A_i x_i + noise e_i``, each node with its
    own ground truth ``x_i = c + heterogeneity z_i`` (c, z_i, e_i standard normal). With
    heterogeneity and noise 0 all nodes have the same minimiser c.

    Constants: mu is the smallest over the nodes, smoothness the largest; none where m < d, for no
    f_i is strongly convex then, whatever their average is.
    """

    dim: int = 20
    #: rows per node, m
    samples: int = 30
    scale_spread: float = 0.3
    heterogeneity: float = 2.0
    #: standard deviation of the noise in y
    noise: float = 0.1
    #: rows per gradient; None (null) for all
    batch_size: int | None = None
    #: "epochs" or "independent", see :class:`tidings.problems.batches.Batches`
    sampling: Sampling = "epochs"

    def __post_init__(self) -> None:
        """ValueError for counts below 1 and negative sizes."""
        check_batch_size(self.batch_size)
        if min(self.dim, self.samples) < 1:
            raise ValueError("dim and samples must be at least 1")
        if not all(size >= 0 for size in (self.scale_spread, self.heterogeneity, self.noise)):
            raise ValueError("scale_spread, heterogeneity and noise must not be negative")

    def local(self, node: int, nodes: int, seed: int) -> LocalProblem:
        """Node ``node``'s rows."""
        return LocalLeastSquares(self, node, nodes, seed)


class LocalLeastSquares(LocalProblem):
    """One node's rows."""

    def __init__(self, problem: LeastSquares, node: int, nodes: int, seed: int) -> None:
        self.dim = problem.dim
        self.samples = problem.samples
        self._whole = problem, nodes, seed
        self._features, self._targets = _rows(problem, node, seed)
        self._batches = Batches(problem.samples, problem.batch_size, problem.sampling)
        self.batches = problem.samples / self._batches.size

    @functools.cached_property
    def constants(self) -> Constants | None:
        """Computed when first asked for; None where no local objective is strongly convex."""
        return _constants(*self._whole)

    @property
    def smoothness(self) -> Smoothness:
        """The largest eigenvalue of every node's Hessian, and of the average one."""
        return _smoothness(*self._whole)

    def initial(self) -> torch.Tensor:
        """The origin."""
        return torch.zeros(self.dim)

    def keep(self) -> np.ndarray:
        """What is left of the epoch."""
        return self._batches.rest

    def put_back(self, kept: np.ndarray) -> None:
        """Go on with what is left of an epoch."""
        self._batches.rest = kept

    def gradient(self, x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """``A_B^T (A_B x - y_B) / |B|`` on the next batch B of rows, computed in float64."""
        return self._gradient(x, self._batches.draw(rng))

    def on_batch(self, rng: np.random.Generator) -> Callable[[torch.Tensor], torch.Tensor]:
        """As :meth:`gradient`, on one batch."""
        rows = self._batches.draw(rng)
        return lambda x: self._gradient(x, rows)

    def full_gradient(self, x: torch.Tensor) -> torch.Tensor:
        """``A^T (A x - y) / m`` over all rows, computed in float64."""
        return self._gradient(x, np.arange(self.samples))

    def _gradient(self, x: torch.Tensor, batch: np.ndarray) -> torch.Tensor:
        rows = torch.from_numpy(batch)
        features = self._features[rows]
        residuals = features @ x.double() - self._targets[rows]
        return (features.T @ residuals / len(rows)).float()

    def minimizer(self, linear: torch.Tensor, ridge: float) -> torch.Tensor:
        """``(A^T A / m + ridge I)^-1 (A^T y / m + linear)``; ValueError where there is none."""
        return regularised(self._features, self._targets, linear, ridge)

    def evaluate(self, x: torch.Tensor) -> Mapping[str, float]:
        """``loss`` f(x), ``suboptimality`` f(x) - f*, ``distance`` |x - x*|^2."""
        average = _average(*self._whole)
        away = x.double() - average.minimizer
        suboptimality = 0.5 * float(away @ (average.hessian @ away))
        return {
            "loss": average.value + suboptimality,
            "suboptimality": suboptimality,
            "distance": float(away @ away),
        }


def regularised(
    features: torch.Tensor, targets: torch.Tensor, linear: torch.Tensor, ridge: float
) -> torch.Tensor:
    """The minimiser of ``|A x - y|^2 / (2 m) + ridge/2 |x|^2 - <linear, x>``, all float64.

    ValueError where it is not unique: fewer rows than columns and no ridge.
    """
    rows, dim = features.shape
    if ridge == 0 and rows < dim:
        raise ValueError(f"{rows} rows of {dim} features have no unique minimiser")
    hessian = features.T @ features / rows + ridge * torch.eye(dim, dtype=torch.float64)
    solution: torch.Tensor = torch.linalg.solve(hessian, features.T @ targets / rows + linear)
    return solution


@dataclass(frozen=True)
class _Average:
    """The average objective: (d, d) Hessian, (d,) minimiser (of least norm), least value."""

    hessian: torch.Tensor
    minimizer: torch.Tensor
    value: float


@functools.lru_cache(maxsize=4)
def _average(problem: LeastSquares, nodes: int, seed: int) -> _Average:
    """The normal equations, added up node by node; the value from the residuals."""
    hessian = torch.zeros(problem.dim, problem.dim, dtype=torch.float64)
    linear = torch.zeros(problem.dim, dtype=torch.float64)
    for node in range(nodes):
        features, targets = _rows(problem, node, seed)
        hessian += features.T @ features / (problem.samples * nodes)
        linear += features.T @ targets / (problem.samples * nodes)
    minimizer = torch.linalg.pinv(hessian, hermitian=True) @ linear
    value = 0.0
    for node in range(nodes):
        features, targets = _rows(problem, node, seed)
        residuals = features @ minimizer - targets
        value += 0.5 * float(residuals @ residuals) / (problem.samples * nodes)
    return _Average(hessian, minimizer, value)


@functools.lru_cache(maxsize=4)
def _constants(problem: LeastSquares, nodes: int, seed: int) -> Constants | None:
    if problem.samples < problem.dim:
        return None
    average = _average(problem, nodes, seed)
    largest = max(_smoothness(problem, nodes, seed).local)
    # of A_i: the square root of the least eigenvalue of A_i^T A_i
    least = (torch.linalg.svdvals(_rows(problem, node, seed)[0])[-1] for node in range(nodes))
    mu = min(float(value) for value in least) ** 2 / problem.samples
    return Constants(mu, largest, average.minimizer.float(), average.value)


@functools.lru_cache(maxsize=4)
def _smoothness(problem: LeastSquares, nodes: int, seed: int) -> Smoothness:
    local = []
    for node in range(nodes):
        features, _ = _rows(problem, node, seed)
        local.append(float(torch.linalg.matrix_norm(features, ord=2)) ** 2 / problem.samples)
    average = float(torch.linalg.eigvalsh(_average(problem, nodes, seed).hessian)[-1])
    return Smoothness(tuple(local), average)


def _rows(problem: LeastSquares, node: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Node ``node``'s (m, d) features and (m,) targets, float64."""
    own = generator(seed, "least squares", node)
    common = generator(seed, "least squares").standard_normal(problem.dim)
    features = own.standard_normal((problem.samples, problem.dim))
    features *= 1 + problem.scale_spread * node
    truth = common + problem.heterogeneity * own.standard_normal(problem.dim)
    targets = features @ truth + problem.noise * own.standard_normal(problem.samples)
    return torch.from_numpy(features).clone(), torch.from_numpy(targets).clone()
