"""AGRAMPLIFIER against plain implementations of what its papers write."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tidings.aggregators.agrmp import AGRMP, pooled
from tidings.aggregators.agrxai import AGRXAI
from tidings.aggregators.density import Density, Metric
from tidings.aggregators.krum import Krum
from tidings.aggregators.median import Median
from tidings.api import LocalProblem, Problem
from tidings.units import Ratio

pytestmark = pytest.mark.oracle

METRICS: list[Metric] = ["cosine", "euclidean", "merged"]


def cloud(seed: int, rows: int, dim: int, bad: int = 0) -> torch.Tensor:
    """Around one direction; the last ``bad`` around its opposite."""
    rng = np.random.default_rng(seed)
    values = 1 + rng.standard_normal((rows, dim))
    values[rows - bad :] *= -1
    return torch.from_numpy(values).float()


def plain_scores(rows: np.ndarray, metric: str, k: int, block: bool) -> list[float]:
    """S_i of ACSAC 2022, Algorithm 2, the larger the denser; or the code's block sum."""

    def alike(x: np.ndarray, y: np.ndarray) -> float:
        if metric == "euclidean":
            return -float(np.linalg.norm(x - y))
        return float(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)))

    c = np.array([[alike(x, y) for y in rows] for x in rows])
    if not block:
        return [float(np.sort(row)[::-1][:k].sum()) for row in c]
    near = [np.argsort(-row, kind="stable")[:k] for row in c]
    return [float(c[np.ix_(index, index)].sum()) for index in near]


def densest(rows: np.ndarray, metric: str, f: int, k: int, block: bool) -> set[int]:
    scores = plain_scores(rows, metric, k, block)
    return set(np.argsort(-np.array(scores), kind="stable")[: len(rows) - f].tolist())


@settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.filter_too_much],
)
@given(
    st.integers(0, 10_000),
    st.integers(3, 12),
    st.integers(2, 30),
    st.sampled_from(METRICS),
    st.booleans(),
    st.data(),
)
def test_the_density_filter(
    seed: int, m: int, dim: int, metric: Metric, block: bool, data: st.DataObject
) -> None:
    f = data.draw(st.integers(0, (m - 1) // 2))
    k = data.draw(st.none() | st.integers(2, m))
    rows = cloud(seed, m, dim, bad=f)
    units = rows.double().numpy()
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    kept = set(range(m))
    for one in ("cosine", "euclidean"):
        if metric in (one, "merged"):
            scores = sorted(plain_scores(units, one, k or m // 2 + 1, block), reverse=True)
            # mutual nearest neighbours have equal scores, and rounding decides between them
            assume(f == 0 or scores[m - f - 1] - scores[m - f] > 1e-6)
            kept &= densest(units, one, f, k or m // 2 + 1, block)
    rule = Density(f, metric=metric, neighbors=k, score="block" if block else "row")
    want = units[sorted(kept)].mean(axis=0)
    np.testing.assert_allclose(rule(rows).numpy(), want, atol=1e-5)


def test_without_bad_rows_it_is_the_mean_of_the_unit_rows() -> None:
    rows = cloud(1, 9, 20)
    for rule in (Density(0), AGRMP(0), AGRMP(0, metric="merged")):
        want = torch.nn.functional.normalize(rows, dim=1).mean(dim=0)
        torch.testing.assert_close(rule(rows), want, rtol=0, atol=1e-6)


def test_another_rule_combines_what_is_kept_and_lengths_can_stay() -> None:
    rows = cloud(2, 11, 40, bad=3)
    kept = Density(3, normalize=False).whitelist(rows, 3)
    assert kept == list(range(8))
    for then in (Median(1), Krum(1)):
        assert torch.equal(Density(3, then, normalize=False)(rows), then(rows[:8]))


@pytest.mark.parametrize("rule", [Density(3), AGRMP(3), AGRMP(3, score="block")], ids=str)
def test_the_order_of_rows_does_not_matter(rule: Density) -> None:
    rows = cloud(5, 11, 40, bad=3)
    order = torch.from_numpy(np.random.default_rng(0).permutation(11))
    torch.testing.assert_close(rule(rows[order]), rule(rows), rtol=0, atol=1e-6)


# -- AGRMP -----------------------------------------------------------------------------------------


def test_pooling_takes_the_signed_maximum_of_each_square_of_each_layer() -> None:
    weight = torch.tensor([[1.0, -9, 2, 0], [0, 3, -1, -2], [9, 9, 9, 9]])
    bias = torch.tensor([-5.0, -7, 4])
    rows = torch.cat([weight.flatten(), bias])[None]
    # the third row of the matrix and the last number of the bias fill no square
    assert pooled(rows, ((3, 4), (3,)), 2).tolist() == [[3.0, 2.0, -5.0]]
    # a layer narrower than the patch is pooled in windows of its own width
    assert pooled(rows, ((3, 4), (3,)), 4).tolist() == [[9.0, 4.0]]


@pytest.mark.parametrize("patch", [1, 2, 3, 5])
def test_the_pooled_length(patch: int) -> None:
    shapes = ((64, 25), (64,), (10, 64), (10,), (6, 2, 5, 5))
    sizes = [int(np.prod(shape)) for shape in shapes]
    rows = torch.zeros(2, sum(sizes))
    matrices = [(64, 25), (1, 64), (10, 64), (1, 10), (6, 50)]
    want = sum((h // min(patch, h)) * (w // min(patch, w)) for h, w in matrices)
    assert pooled(rows, shapes, patch).shape == (2, want)


def test_the_decision_is_by_pooled_layers_and_the_result_of_originals() -> None:
    local = Problem.parse({"kind": "digits", "hidden": 12}).local(0, 3, 1)
    shapes = local.shapes
    assert shapes == ((12, 64), (12,), (10, 12), (10,))
    rows = cloud(7, 9, local.dim, bad=2)
    units = torch.nn.functional.normalize(rows, dim=1)
    parts = []
    for row in units.numpy():
        places, start = [], 0
        for shape in shapes:
            size = int(np.prod(shape))
            matrix = row[start : start + size].reshape(shape if len(shape) > 1 else (1, -1))
            start += size
            h, w = (min(3, side) for side in matrix.shape)
            places += [
                matrix[i : i + h, j : j + w].max()
                for i in range(0, matrix.shape[0] - h + 1, h)
                for j in range(0, matrix.shape[1] - w + 1, w)
            ]
        parts.append(places)
    kept = sorted(densest(np.array(parts, dtype=np.float64), "cosine", 2, 5, block=False))
    got = AGRMP(2)(rows, problem=local)
    torch.testing.assert_close(got, units[kept].mean(dim=0), rtol=0, atol=1e-6)


# -- AGRXAI ----------------------------------------------------------------------------------------


def images() -> LocalProblem:
    return Problem.parse({"kind": "digits", "model": "cnn", "hidden": 8}).local(0, 20, 1)


def test_channel_weights_are_slopes_along_the_channels_biases() -> None:
    """Adding to a bias adds to the whole 4 x 4 channel of every sample."""
    local = images()
    rng = np.random.default_rng(3)
    x = local.initial() + 0.1 * torch.from_numpy(rng.standard_normal(local.dim)).float()
    salience, places = local.channels(x)
    slopes = local.full_gradient(x).double()[places[:, -1]] * local.samples / 16
    torch.testing.assert_close(salience, slopes, rtol=1e-4, atol=1e-5)
    # 8 channels of 5 x 5 and a bias: the first 208 parameters, each once
    assert places.shape == (8, 26)
    assert sorted(places.flatten().tolist()) == list(range(208))
    assert places[2].tolist() == [*range(50, 75), 202]


def test_the_most_salient_channels_decide() -> None:
    local = images()
    rng = np.random.default_rng(4)
    rows = torch.from_numpy(0.2 * rng.standard_normal((7, local.dim))).float()
    rule = AGRXAI(2, normalize=False, keep=Ratio(0.25))
    parts = []
    for row in rows:
        salience, places = local.channels(row)
        best = sorted(range(8), key=lambda c: -float(salience[c]))[:2]
        parts.append(row[torch.cat([places[c] for c in best])].double().numpy())
    kept = sorted(densest(np.stack(parts), "cosine", 2, 4, block=False))
    got = rule(rows, problem=local)
    torch.testing.assert_close(got, rows[kept].mean(dim=0), rtol=0, atol=1e-6)


def test_it_needs_a_convolution_and_data() -> None:
    with pytest.raises(ValueError, match="no convolution; of images take model: cnn"):
        AGRXAI(1).check_problem(Problem.parse("digits").local(0, 2, 1))
    with pytest.raises(ValueError, match="no convolution"):
        AGRXAI(1).check_problem(Problem.parse("quadratic").local(0, 2, 1))
    AGRXAI(1).check_problem(images())
    with pytest.raises(ValueError, match="call it with a problem"):
        AGRXAI(1)(cloud(0, 5, 8))
