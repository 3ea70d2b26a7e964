"""What the eigenvalues of weights and Laplacians say: how fast averaging and gossip go."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
BoolMatrix = NDArray[np.bool_]

#: which sums of a weight matrix are 1: rows and columns, rows only, columns only
Stochastic = Literal["doubly", "row", "column"]

#: a sum of weights that is this near to 1 is 1
SUM_TOLERANCE = 1e-9
#: a product of matrices of norm 1 that is this small is rounding, and stands for zero
_ZERO = 1e-12


def stochasticity(weights: Matrix) -> Stochastic | None:
    """Which sums of ``weights`` ((n, n) float64) are 1, to 1e-9; None where neither."""
    rows = np.allclose(weights.sum(axis=1), 1, rtol=0, atol=SUM_TOLERANCE)
    columns = np.allclose(weights.sum(axis=0), 1, rtol=0, atol=SUM_TOLERANCE)
    if rows and columns:
        return "doubly"
    if rows or columns:
        return "row" if rows else "column"
    return None


def spectral_gap(matrices: Sequence[Matrix], every: int) -> float:
    """1 - the factor by which a round of averaging shrinks disagreement, in [0, 1].

    ``matrices`` ((n, n) float64 each, row- or column-stochastic) are applied in turn, each
    ``every`` rounds. With J = 11^T / n and Q = I - J:

    - one matrix: 1 - |lambda_2|, the second largest eigenvalue modulus of W;
    - more than one, doubly stochastic: 1 - ||P - J||^(1/rounds), P the product over a period;
    - more than one, other: 1 - |lambda_2(P)|^(1/rounds), as P tends to another limit than J.

    Because 1 is an eigenvector of W or of W^T, Q P Q is the product of the Q W Q, it has the
    eigenvalues of P without the 1, and where both hold it is P - J. Products are rescaled on the
    way: a long period would otherwise end in rounding and look like exact averaging.
    """
    factors = [_without_mean(matrix) for matrix in matrices]
    if len(factors) == 1:
        return _clipped(1 - _radius(factors[0]))
    product, log_scale = _scaled(factors[0])
    product, log_scale = _power(product, log_scale, every)
    for factor in factors[1:]:
        power, power_scale = _power(*_scaled(factor), every)
        product, step = _scaled(power @ product)
        log_scale += power_scale + step
    if log_scale == -math.inf:
        return 1.0
    doubly = all(stochasticity(matrix) == "doubly" for matrix in matrices)
    size = float(np.linalg.norm(product, 2)) if doubly else _radius(product)
    if size == 0:
        return 1.0
    return _clipped(-math.expm1((math.log(size) + log_scale) / (every * len(matrices))))


def chi_and_gap(rates: Matrix, adjacency: BoolMatrix) -> tuple[float, float, float]:
    """chi_1, chi_2 and eigengap of gossip with a rate per edge, ``rates`` (n, n) symmetric float64.

    With the Laplacian L of the rates, chi_1 is 1 / lambda_2(L), chi_2 half the largest effective
    resistance over the edges of ``adjacency``, max (e_i - e_j)^T L^+ (e_i - e_j) / 2 (Nabli &
    Oyallon, ICML 2023), and the eigengap lambda_2(L) / lambda_max(L). All nan for one node;
    infinite, infinite and 0 where the rates do not connect the graph. The diagonal of ``rates``
    does not count.
    """
    n = len(adjacency)
    if n == 1:
        return math.nan, math.nan, math.nan
    off = rates * adjacency
    laplacian = np.diag(off.sum(axis=1)) - off
    values = np.linalg.eigvalsh(laplacian)
    least, scale = float(values[1]), float(off.sum()) / n
    if least <= _ZERO * scale:
        return math.inf, math.inf, 0.0
    # L + J has the pseudo-inverse's entries up to J, which cancels in a resistance.
    inverse = np.linalg.inv(laplacian + scale / n)
    i, j = np.nonzero(np.triu(adjacency))
    resistance = inverse[i, i] + inverse[j, j] - 2 * inverse[i, j]
    return 1 / least, float(resistance.max()) / 2, least / float(values[-1])


def _without_mean(matrix: Matrix) -> Matrix:
    """Q M Q with Q = I - 11^T / n, in O(n^2)."""
    rows = matrix - matrix.mean(axis=1, keepdims=True)
    centred: Matrix = rows - rows.mean(axis=0, keepdims=True)
    return centred


def _radius(matrix: Matrix) -> float:
    """The largest eigenvalue modulus."""
    symmetric = np.array_equal(matrix, matrix.T)
    values = np.linalg.eigvalsh(matrix) if symmetric else np.linalg.eigvals(matrix)
    return float(np.abs(values).max())


def _scaled(matrix: Matrix) -> tuple[Matrix, float]:
    """``matrix`` with Frobenius norm 1, and the log of the norm that it had."""
    size = float(np.linalg.norm(matrix))
    if size < _ZERO:
        return np.zeros_like(matrix), -math.inf
    return matrix / size, math.log(size)


def _power(matrix: Matrix, log_scale: float, exponent: int) -> tuple[Matrix, float]:
    """The scaled power of a scaled matrix, by repeated squaring."""
    if exponent == 1:
        return matrix, log_scale
    half, half_scale = _power(matrix, log_scale, exponent // 2)
    power, step = _scaled(half @ half)
    total = 2 * half_scale + step
    if exponent % 2:
        power, step = _scaled(power @ matrix)
        total += log_scale + step
    return power, total


def _clipped(gap: float) -> float:
    return min(1.0, max(0.0, gap))
