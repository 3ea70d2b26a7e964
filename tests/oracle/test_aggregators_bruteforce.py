"""Aggregators against plain float64 implementations, and the attack on the medoid."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tidings.aggregators.arc import ARC
from tidings.aggregators.bucketing import Bucketing
from tidings.aggregators.caf import CAF
from tidings.aggregators.centered_clipping import CenteredClipping
from tidings.aggregators.clipping import Clipping
from tidings.aggregators.geometric_median import GeometricMedian
from tidings.aggregators.gram import Points
from tidings.aggregators.krum import Krum
from tidings.aggregators.mda import MDA, tightest
from tidings.aggregators.mean import Mean
from tidings.aggregators.median import Median
from tidings.aggregators.multi_krum import MultiKrum
from tidings.aggregators.nnm import NNM
from tidings.aggregators.trimmed_mean import TrimmedMean
from tidings.api import Aggregator, Context

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


@settings(deadline=None, max_examples=40)
@given(SHAPES, st.data())
def test_multi_krum_is_the_mean_of_the_best_scores(
    shape: tuple[int, int, int], data: st.DataObject
) -> None:
    seed, m, dim = shape
    f = data.draw(st.integers(0, (m - 3) // 2))
    selected = data.draw(st.none() | st.integers(1, m))
    rows = cloud(seed, m, dim, bad=f)
    exact = rows.double().numpy()
    order = np.argsort(plain_krum_scores(exact, f), kind="stable")
    count = min(m - f - 2, selected or m)
    scores = np.sort(plain_krum_scores(exact, f))
    if count < m and scores[count] - scores[count - 1] < 1e-9 * scores[-1]:
        return  # a tie: either row is right
    # combine, for a call lowers f where so many are to be selected
    out = MultiKrum(f, selected).combine(rows, Context(f=f))
    np.testing.assert_allclose(out.numpy(), exact[order[:count]].mean(axis=0), atol=1e-5)


def plain_mda(rows: np.ndarray, f: int) -> tuple[float, float, tuple[int, ...]]:
    """Smallest diameter, then smallest sum of squared distances, over all subsets."""
    found = []
    for kept in itertools.combinations(range(len(rows)), len(rows) - f):
        pairs = [squared(rows[i], rows[j]) for i, j in itertools.combinations(kept, 2)]
        found.append((max(pairs, default=0.0), sum(pairs), kept))
    return min(found)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(3, 9), st.integers(1, 5), st.data())
def test_minimum_diameter_over_all_subsets(
    seed: int, m: int, dim: int, data: st.DataObject
) -> None:
    f = data.draw(st.integers(0, (m - 1) // 2))
    rows = cloud(seed, m, dim, bad=f)
    exact = rows.double().numpy()
    *_, kept = plain_mda(exact, f)
    assert tightest(Points.of(rows).squared_distances(), f) == list(kept)
    np.testing.assert_allclose(MDA(f)(rows).numpy(), exact[list(kept)].mean(axis=0), atol=1e-5)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 3), min_size=3, max_size=9), st.data())
def test_minimum_diameter_among_ties(values: list[int], data: st.DataObject) -> None:
    """On a few whole numbers nearly all distances are equal to others."""
    f = data.draw(st.integers(0, (len(values) - 1) // 2))
    rows = torch.tensor(values, dtype=torch.float32)[:, None]
    diameter, _, _ = plain_mda(rows.double().numpy(), f)
    kept = tightest(Points.of(rows).squared_distances(), f)
    assert len(kept) == len(values) - f
    assert float((rows[kept].max() - rows[kept].min()) ** 2) == diameter


def test_minimum_diameter_of_many_rows_takes_no_time() -> None:
    """30 rows with f = 10 have 3 10^7 subsets."""
    rows = cloud(1, 30, 50, bad=10)
    np.testing.assert_allclose(MDA(10)(rows), rows[:20].double().mean(dim=0), atol=1e-6)


def plain_caf(rows: np.ndarray, f: int) -> np.ndarray:
    """Allouah et al. 2025, with d x d covariance matrices."""
    c = np.ones(len(rows))
    best, smallest = rows.mean(axis=0), math.inf
    while c.sum() > len(rows) - 2 * f:
        mean = c @ rows / c.sum()
        away = rows - mean
        values, vectors = np.linalg.eigh((away.T * c) @ away / c.sum())
        if values[-1] < smallest:
            best, smallest = mean, values[-1]
        if values[-1] <= 0:
            break
        tau = np.where(c > 0, (away @ vectors[:, -1]) ** 2, 0.0)
        c = c * (1 - tau / tau.max())
    return np.asarray(best)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(3, 14), st.integers(2, 20), st.data())
def test_the_covariance_filter(seed: int, m: int, dim: int, data: st.DataObject) -> None:
    f = data.draw(st.integers(0, (m - 1) // 2))
    rows = cloud(seed, m, dim, bad=f)
    exact = plain_caf(rows.double().numpy(), f)
    np.testing.assert_allclose(CAF(f)(rows).numpy(), exact, atol=1e-4)


def test_the_covariance_filter_finds_what_one_power_step_misses() -> None:
    """Liars at -2 times the honest mean: it takes them out, to a percent of that mean."""
    rng = np.random.default_rng(3)
    honest = 0.1 * rng.standard_normal(2000) + rng.standard_normal((16, 2000)) * 0.01
    liars = np.tile(-2 * honest.mean(axis=0), (4, 1)) + 1e-4 * rng.standard_normal((4, 2000))
    out = CAF(4)(torch.from_numpy(np.concatenate([honest, liars])).float()).numpy()
    mean = honest.mean(axis=0)
    assert np.linalg.norm(out - mean) < 0.02 * np.linalg.norm(mean)


# -- what comes before a rule ------------------------------------------------------------------


def plain_buckets(rows: np.ndarray, s: int, order: np.ndarray) -> np.ndarray:
    return np.stack([rows[order[i : i + s]].mean(axis=0) for i in range(0, len(rows), s)])


def plain_clip(rows: np.ndarray, limit: float) -> np.ndarray:
    return np.stack([x * min(1, limit / max(1e-300, np.linalg.norm(x))) for x in rows])


def plain_arc(rows: np.ndarray, f: int) -> np.ndarray:
    norms = np.sort(np.linalg.norm(rows, axis=1))[::-1]
    return plain_clip(rows, norms[math.floor(2 * f * (len(rows) - f) / len(rows))])


# not MDA: mixed rows are nearly equal, and which of them is left out is up to rounding
THEN: list[Aggregator] = [Mean(), Median(1), TrimmedMean(1), Krum(1), GeometricMedian(1)]


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 10_000),
    st.integers(11, 20),
    # on a line there is more than one geometric median
    st.integers(4, 60),
    st.sampled_from(THEN),
    st.sampled_from([0.0, 5.0]),
)
def test_pre_aggregators_are_the_rule_on_the_new_rows(
    seed: int, m: int, dim: int, then: Aggregator, offset: float
) -> None:
    """Whether the rule sees the rows or only their products."""
    rows = cloud(seed, m, dim, bad=1, offset=offset)
    exact = rows.double().numpy()
    order = np.random.default_rng(seed).permutation(m)
    cases: list[tuple[Aggregator, np.ndarray]] = [
        (Bucketing(1, then, s=2), plain_buckets(exact, 2, order)),
        (Clipping(1, then, c=3.0), plain_clip(exact, 3.0)),
        (ARC(1, then), plain_arc(exact, 1)),
        (NNM(1, then), plain_mixing(exact, 1)),
        (ARC(1, NNM(1, then)), plain_mixing(plain_arc(exact, 1), 1)),
        (Bucketing(1, ARC(1, then), s=3), plain_arc(plain_buckets(exact, 3, order), 1)),
    ]
    for rule, new_rows in cases:
        want = then(torch.from_numpy(new_rows).float())
        got = rule(rows, rng=np.random.default_rng(seed))
        # krum among near ties may take another row than from rounded rows
        if isinstance(then, Krum):
            scores = plain_krum_scores(new_rows, 1)
            if len(scores) > 1 and np.diff(np.sort(scores))[0] < 1e-4 * max(scores):
                continue
        np.testing.assert_allclose(got.numpy(), want.numpy(), atol=2e-4)


def test_the_own_row_is_followed_into_its_bucket() -> None:
    rows = cloud(4, 9, 3)
    order = np.random.default_rng(0).permutation(9).tolist()
    buckets = plain_buckets(rows.double().numpy(), 2, np.array(order))
    rule = Bucketing(0, CenteredClipping(tau=1e-9), s=2)  # returns what it is centred at
    for own in range(9):
        got = rule(rows, own, rng=np.random.default_rng(0)).numpy()
        np.testing.assert_allclose(got, buckets[order.index(own) // 2], atol=1e-6)


# -- distances ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("m", "offset"), [(20, 0.0), (20, 1e3), (30, 1e3), (30, 1e5)])
def test_an_offset_does_not_blur_distances(m: int, offset: float) -> None:
    """Un-centred float32 products are wrong by a quarter at an offset of 10^3."""
    rows = cloud(1, m, 9000, offset=offset)
    exact = torch.cdist(rows.double(), rows.double(), compute_mode="donot_use_mm_for_euclid_dist")
    measured = Points.of(rows).squared_distances()
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
    measured = Points.of(rows).squared_distances()
    assert measured.isfinite().all()
    assert torch.allclose(measured[others][:, others], exact[others][:, others] ** 2, rtol=1e-9)


def test_distances_to_a_weighted_mean() -> None:
    rows = cloud(3, 10, 500, offset=1e3)
    weights = torch.arange(1.0, 11.0, dtype=torch.float64) / 55
    exact = (rows.double() - weights @ rows.double()).norm(dim=1)
    assert torch.allclose(Points.of(rows).distances_to(weights), exact, rtol=1e-9)


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
