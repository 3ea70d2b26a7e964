"""Aggregators against plain float64 implementations, and the attack on the medoid."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tidings.aggregators.centered_clipping import CenteredClipping
from tidings.aggregators.geometric_median import GeometricMedian
from tidings.aggregators.gram import centred_gram, distances_to, squared_distances
from tidings.aggregators.krum import Krum
from tidings.aggregators.median import Median
from tidings.aggregators.nnm import NNM
from tidings.aggregators.trimmed_mean import TrimmedMean

pytestmark = pytest.mark.oracle


def cloud(seed: int, rows: int, dim: int, bad: int = 0, offset: float = 0.0) -> torch.Tensor:
    """Normal rows, the last ``bad`` of them elsewhere and close together."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((rows, dim))
    values[rows - bad :] = 3 + 0.1 * rng.standard_normal((bad, dim))
    return torch.from_numpy(values + offset).float()


def squared(x: np.ndarray, y: np.ndarray) -> float:
    return float(((x - y) ** 2).sum())


def plain_krum_scores(rows: np.ndarray, f: int) -> list[float]:
    """Blanchard et al. 2017: squared distances to the n - f - 2 closest others."""
    scores = []
    for i, x in enumerate(rows):
        others = sorted(squared(x, y) for j, y in enumerate(rows) if j != i)
        scores.append(sum(others[: len(rows) - f - 2]))
    return scores


def plain_weiszfeld(rows: np.ndarray, iterations: int) -> np.ndarray:
    z: np.ndarray = np.median(rows, axis=0)
    for _ in range(iterations):
        pull = 1 / np.maximum(1e-12, np.linalg.norm(rows - z, axis=1))
        z = (pull[:, None] * rows).sum(axis=0) / pull.sum()
    return z


def plain_mixing(rows: np.ndarray, f: int) -> np.ndarray:
    mixed = []
    for i, x in enumerate(rows):
        order = sorted(range(len(rows)), key=lambda j: (j != i, squared(x, rows[j])))
        mixed.append(rows[order[: len(rows) - f]].mean(axis=0))
    return np.stack(mixed)


def plain_clipping(rows: np.ndarray, own: int, tau: float, iterations: int) -> np.ndarray:
    v = rows[own]
    for _ in range(iterations):
        v = v + np.mean([(x - v) * min(1, tau / max(1e-300, math.dist(x, v))) for x in rows], 0)
    return np.asarray(v)


SHAPES = st.tuples(st.integers(0, 10_000), st.integers(3, 14), st.integers(1, 60))


@settings(deadline=None, max_examples=50)
@given(SHAPES, st.data())
def test_krum_takes_the_smallest_score(shape: tuple[int, int, int], data: st.DataObject) -> None:
    seed, m, dim = shape
    f = data.draw(st.integers(0, (m - 3) // 2))
    rows = cloud(seed, m, dim, bad=f)
    scores = plain_krum_scores(rows.double().numpy(), f)
    chosen = Krum(f)(rows)
    best = next(i for i in range(m) if torch.equal(rows[i], chosen))
    assert scores[best] <= min(scores) * (1 + 1e-9)


@settings(deadline=None, max_examples=50)
@given(SHAPES, st.data())
def test_coordinate_wise_rules(shape: tuple[int, int, int], data: st.DataObject) -> None:
    seed, m, dim = shape
    f = data.draw(st.integers(0, (m - 1) // 2))
    rows = cloud(seed, m, dim, bad=f)
    exact = np.sort(rows.double().numpy(), axis=0)
    # both are sums of at most m float64, rounded once
    median = torch.from_numpy(np.median(exact, axis=0)).float()
    assert torch.equal(Median(f)(rows), median)
    trimmed = torch.from_numpy(exact[f : m - f].mean(axis=0)).float()
    assert torch.allclose(TrimmedMean(f)(rows), trimmed, rtol=1e-6, atol=1e-7)


@settings(deadline=None, max_examples=20)
@given(SHAPES, st.integers(0, 4))
@example((2, 4, 2), 1)
def test_geometric_median_against_long_weiszfeld(shape: tuple[int, int, int], bad: int) -> None:
    seed, m, dim = shape
    rows = cloud(seed, m, dim, bad=min(bad, (m - 1) // 2))
    exact = rows.double().numpy()

    def cost(z: np.ndarray) -> float:
        return float(np.linalg.norm(exact - z, axis=1).sum())

    # the cost is compared, for between rows that pull from opposite sides the minimum is flat
    least = cost(plain_weiszfeld(exact, 1000))
    assert cost(GeometricMedian(iterations=1000)(rows).double().numpy()) <= least * (1 + 1e-4)
    # near a row convergence is slow; the default stops within a percent
    assert cost(GeometricMedian()(rows).double().numpy()) <= least * (1 + 1e-2)


def test_geometric_median_meets_the_optimality_condition() -> None:
    """The unit vectors from the result to the rows add up to zero."""
    for seed in range(5):
        rows = cloud(seed, 15, 200, bad=5).double()
        z = GeometricMedian(iterations=500)(rows.float()).double()
        assert float(torch.nn.functional.normalize(rows - z).sum(dim=0).norm()) < 1e-4


@settings(deadline=None, max_examples=40)
@given(SHAPES, st.floats(0.1, 30), st.integers(1, 4), st.data())
def test_centered_clipping(
    shape: tuple[int, int, int], tau: float, iterations: int, data: st.DataObject
) -> None:
    seed, m, dim = shape
    own = data.draw(st.integers(0, m - 1))
    rows = cloud(seed, m, dim, bad=1)
    exact = plain_clipping(rows.double().numpy(), own, tau, iterations)
    out = CenteredClipping(tau=tau, iterations=iterations)(rows, own)
    assert np.allclose(out.numpy(), exact, atol=1e-5)


@settings(deadline=None, max_examples=40)
@given(SHAPES, st.data())
def test_nearest_neighbour_mixing(shape: tuple[int, int, int], data: st.DataObject) -> None:
    seed, m, dim = shape
    f = data.draw(st.integers(0, (m - 1) // 2))
    rows = cloud(seed, m, dim, bad=f)
    mixed = np.sort(plain_mixing(rows.double().numpy(), f), axis=0)
    assert np.allclose(NNM(f)(rows).numpy(), mixed[f : m - f].mean(axis=0), atol=1e-5)


# -- distances ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("m", "offset"), [(20, 0.0), (20, 1e3), (30, 1e3), (30, 1e5)])
def test_an_offset_does_not_blur_distances(m: int, offset: float) -> None:
    """Un-centred float32 products are wrong by a quarter at an offset of 10^3."""
    rows = cloud(1, m, 9000, offset=offset)
    exact = torch.cdist(rows.double(), rows.double(), compute_mode="donot_use_mm_for_euclid_dist")
    measured = squared_distances(centred_gram(rows))
    assert torch.allclose(measured, exact.square(), rtol=1e-9)
    assert measured.diagonal().tolist() == [0.0] * m
    # the test would fail for the obvious implementation
    products = rows @ rows.T
    norms = products.diagonal()
    naive = norms[:, None] + norms[None, :] - 2 * products
    if offset:
        assert not torch.allclose(naive.double(), exact.square(), rtol=1e-2)


@pytest.mark.parametrize("place", [0, 4, 19])
@pytest.mark.parametrize("huge", [1e10, 1e30, 3e38])
def test_a_huge_row_does_not_blur_the_distances_of_others(place: int, huge: float) -> None:
    rows = cloud(2, 20, 5000, offset=1e3)
    rows[place] = huge
    others = [i for i in range(20) if i != place]
    exact = torch.cdist(rows.double(), rows.double(), compute_mode="donot_use_mm_for_euclid_dist")
    measured = squared_distances(centred_gram(rows))
    assert measured.isfinite().all()
    assert torch.allclose(measured[others][:, others], exact[others][:, others] ** 2, rtol=1e-9)


def test_distances_to_a_weighted_mean() -> None:
    rows = cloud(3, 10, 500, offset=1e3)
    weights = torch.arange(1.0, 11.0, dtype=torch.float64) / 55
    exact = (rows.double() - weights @ rows.double()).norm(dim=1)
    assert torch.allclose(distances_to(centred_gram(rows), weights), exact, rtol=1e-9)


# -- why Krum squares, and counts neighbours ---------------------------------------------------


@pytest.mark.parametrize(("n", "f"), [(10, 3), (20, 6)])
def test_a_barycentre_fools_the_medoid_but_not_krum(n: int, f: int) -> None:
    """f - 1 liars far away, one at the mean of everything (Blanchard et al. 2017, Figure 1)."""
    medoid_fooled = krum_fooled = 0
    for seed in range(50):
        rng = np.random.default_rng(seed)
        honest = rng.standard_normal((n - f, 100))
        direction = rng.standard_normal(100)
        far = np.tile(50 * direction / np.linalg.norm(direction), (f - 1, 1))
        # the barycentre of all n vectors, itself included, is that of the other n - 1
        barycentre = np.concatenate([honest, far]).mean(axis=0, keepdims=True)
        rows = torch.from_numpy(np.concatenate([honest, far, barycentre])).float()
        distances = torch.cdist(rows.double(), rows.double())
        medoid_fooled += int(distances.sum(dim=1).argmin()) >= n - f
        chosen = Krum(f)(rows)
        krum_fooled += not any(torch.equal(chosen, row) for row in rows[: n - f])
    assert medoid_fooled >= 48
    assert krum_fooled == 0
