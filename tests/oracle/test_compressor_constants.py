"""The constants of the theory, measured: contraction, variance, unbiasedness, coding length."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tidings.api import Compressor
from tidings.compressors.bitpacking import expected_index_bits, pack_indices, rice_parameter
from tidings.compressors.composition import Composition
from tidings.compressors.contraction import Contraction
from tidings.compressors.identity import Identity
from tidings.compressors.natural import Natural
from tidings.compressors.qsgd import QSGD
from tidings.compressors.rand_k import RandK
from tidings.compressors.sign import Sign
from tidings.compressors.top_k import TopK
from tidings.units import Ratio

pytestmark = pytest.mark.oracle


def shapes(dim: int) -> dict[str, torch.Tensor]:
    """Vectors from flat to one-hot, the extremes of what the constants cover."""
    rng = np.random.default_rng(dim)
    normal = rng.standard_normal(dim)
    return {
        name: torch.from_numpy(np.asarray(values, np.float32))
        for name, values in {
            "normal": normal,
            "flat": np.sign(normal),
            "heavy tailed": rng.standard_t(1.5, dim),
            "one hot": np.eye(dim)[0],
            "one sparse direction": normal * (rng.random(dim) < 0.02),
        }.items()
        if np.any(values)
    }


def relative_errors(compressor: Compressor, vector: torch.Tensor, draws: int) -> np.ndarray:
    """|C(v) - v|^2 / |v|^2 of independent draws."""
    rng = np.random.default_rng(11)
    exact = vector.double()
    errors = [
        float((compressor(vector, rng).dense.double() - exact).square().sum()) for _ in range(draws)
    ]
    return np.array(errors) / float(exact.square().sum())


@pytest.mark.parametrize("dim", [1, 50, 1000])
@pytest.mark.parametrize(
    "compressor",
    [
        Identity(),
        TopK(Ratio(0.1)),
        TopK(Ratio(1.0)),
        RandK(Ratio(0.1)),
        RandK(Ratio(0.8), scaled=True),
        RandK(Ratio(0.1), scaled=True),
        QSGD(1),
        QSGD(15),
        QSGD(127),
        Sign(),
        Natural(),
        Composition(TopK(Ratio(0.1)), Natural()),
        Composition(TopK(Ratio(0.1)), Contraction(QSGD(3))),
        Composition(RandK(Ratio(0.1)), Sign()),
        Composition(RandK(Ratio(0.2), scaled=True), QSGD(7)),
        Contraction(QSGD(1)),
        Contraction(RandK(Ratio(0.1), scaled=True)),
    ],
    ids=str,
)
def test_the_mean_error_is_within_the_constants(compressor: Compressor, dim: int) -> None:
    delta, omega = compressor.delta(dim), compressor.omega(dim)
    assert delta is not None or omega is not None
    for name, vector in shapes(dim).items():
        errors = relative_errors(compressor, vector, 150)
        allowed = 5 * errors.std() / math.sqrt(len(errors)) + 1e-6
        if delta is not None:
            assert 0 < delta <= 1
            assert errors.mean() <= 1 - delta + allowed, name
        if omega is not None:
            assert errors.mean() <= omega + allowed, name


@pytest.mark.parametrize("dim", [10, 333])
def test_where_the_constants_are_attained(dim: int) -> None:
    flat = shapes(dim)["flat"]
    top = TopK(Ratio(0.1))
    assert relative_errors(top, flat, 1)[0] == pytest.approx(1 - top.delta(dim), rel=1e-6)
    one_hot = shapes(dim)["one hot"]
    assert relative_errors(Sign(), one_hot, 1)[0] == pytest.approx(1 - 1 / dim, rel=1e-6)
    # Rand-k holds with equality in the mean, for any vector
    errors = relative_errors(RandK(Ratio(0.1)), shapes(dim)["normal"], 2000)
    count = math.ceil(dim / 10)
    z = (errors.mean() - (1 - count / dim)) / (errors.std() / math.sqrt(len(errors)))
    assert abs(z) < 4


def test_the_worst_case_of_natural_compression() -> None:
    """4/3 of a power of two is rounded up with probability 1/3."""
    errors = relative_errors(Natural(), torch.full((3000,), 4 / 3), 100)
    assert errors.mean() == pytest.approx(1 / 8, rel=0.01)
    # powers of two are themselves
    assert relative_errors(Natural(), 2.0 ** torch.arange(-20, 20), 1)[0] == 0


def test_the_error_of_scaled_sign_is_known_exactly() -> None:
    for vector in shapes(1000).values():
        exact = vector.double()
        share = float(exact.abs().sum() ** 2 / (1000 * exact.square().sum()))
        assert relative_errors(Sign(), vector, 1)[0] == pytest.approx(1 - share, abs=1e-6)
    # Gaussian vectors: delta = 2 / pi
    gaussian = torch.from_numpy(np.random.default_rng(0).standard_normal(200_000)).float()
    assert relative_errors(Sign(), gaussian, 1)[0] == pytest.approx(1 - 2 / math.pi, abs=0.005)


def test_the_variance_of_qsgd_is_that_of_stochastic_rounding() -> None:
    """sum_i p_i (1 - p_i) (|v| / s)^2 with p the part above the lower level."""
    gaussian = torch.from_numpy(np.random.default_rng(0).standard_normal(4096)).float()
    scaled = 16 * gaussian.double().abs() / gaussian.double().norm()
    part = scaled - scaled.floor()
    exact = float((part * (1 - part)).sum() / 16**2)
    errors = relative_errors(QSGD(16), gaussian, 100)
    assert abs(errors.mean() - exact) < 4 * errors.std() / 10
    assert exact < QSGD(16).omega(4096) == 4.0


@pytest.mark.parametrize(
    "compressor",
    [
        RandK(Ratio(0.1), scaled=True),
        RandK(Ratio(0.6), scaled=True),
        QSGD(1),
        QSGD(15),
        Natural(),
        Composition(RandK(Ratio(0.2), scaled=True), Natural()),
    ],
    ids=str,
)
def test_unbiased_where_it_is_claimed(compressor: Compressor) -> None:
    dim, draws = 40, 1000
    rng = np.random.default_rng(3)
    for name, vector in shapes(dim).items():
        seen = np.stack([compressor(vector, rng).dense.numpy() for _ in range(draws)])
        error = seen.mean(axis=0, dtype=np.float64) - vector.numpy()
        spread = seen.std(axis=0, dtype=np.float64) / math.sqrt(draws)
        assert (np.abs(error) <= 5 * spread + 1e-6).all(), name
        # all coordinates together: the sum of squared z scores, chi-square where independent
        scores = (error / np.where(spread > 0, spread, np.inf)) ** 2
        assert scores.sum() < dim + 8 * math.sqrt(2 * dim), name


def test_the_biased_ones_are_biased() -> None:
    """The unbiasedness test above can fail."""
    vector = shapes(40)["normal"]
    rng = np.random.default_rng(3)
    seen = np.stack([RandK(Ratio(0.1))(vector, rng).dense.numpy() for _ in range(1000)])
    spread = seen.std(axis=0) / math.sqrt(1000)
    assert (np.abs(seen.mean(axis=0) - vector.numpy()) > 5 * spread).any()


def test_the_masks_of_rand_k_are_uniform() -> None:
    """Every coordinate is drawn equally often, and so is every pair."""
    dim, draws = 10, 2000
    rng = np.random.default_rng(4)
    masks = np.stack(
        [RandK(Ratio(0.3))(torch.ones(dim), rng).dense.numpy() for _ in range(draws)]
    ).astype(int)
    together = masks.T @ masks / draws
    single, pair = 0.3, 0.3 * 2 / 9
    for i in range(dim):
        for j in range(i, dim):
            p = single if i == j else pair
            assert together[i, j] == pytest.approx(p, abs=5 * math.sqrt(p * (1 - p) / draws))


# Bits an index at d = 10^6: the bound log2 C(d, k) / k, and Golomb-Rice with its parameter.
@pytest.mark.parametrize(
    ("count", "floor", "rice", "parameter"),
    [
        (100, 14.68, 14.79, 13),
        (1_000, 11.40, 11.49, 9),
        (10_000, 8.08, 8.11, 6),
        (100_000, 4.69, 4.76, 3),
    ],
)
def test_indices_are_coded_close_to_the_bound(
    count: int, floor: float, rice: float, parameter: int
) -> None:
    dim = 1_000_000
    log_binomial = math.lgamma(dim + 1) - math.lgamma(count + 1) - math.lgamma(dim - count + 1)
    bound = log_binomial / math.log(2) / count
    assert bound == pytest.approx(floor, abs=0.01)
    assert rice_parameter(count, dim) == parameter
    assert expected_index_bits(count, dim) / count == pytest.approx(rice, abs=0.01)
    rng = np.random.default_rng(count)
    lengths = [
        8 * len(pack_indices(np.sort(rng.choice(dim, count, replace=False)), dim)) / count
        for _ in range(5)
    ]
    assert float(np.mean(lengths)) == pytest.approx(rice, abs=0.05)
    assert bound <= max(lengths) <= bound + 0.3
