"""Aggregators: examples that can be followed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tidings.aggregators.arc import ARC
from tidings.aggregators.bucketing import Bucketing
from tidings.aggregators.caf import CAF
from tidings.aggregators.centered_clipping import CenteredClipping
from tidings.aggregators.clipping import Clipping
from tidings.aggregators.geometric_median import GeometricMedian
from tidings.aggregators.krum import Krum
from tidings.aggregators.mda import MDA
from tidings.aggregators.mean import Mean
from tidings.aggregators.median import Median
from tidings.aggregators.multi_krum import MultiKrum
from tidings.aggregators.nnm import NNM
from tidings.aggregators.trimmed_mean import TrimmedMean
from tidings.api import Context

pytestmark = pytest.mark.unit


def column(*values: float) -> torch.Tensor:
    """One coordinate a row."""
    return torch.tensor(values, dtype=torch.float32)[:, None]


def normal(rows: int, dim: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((rows, dim))).float()


# -- hand examples -----------------------------------------------------------------------------


def test_mean_by_hand() -> None:
    assert Mean()(torch.tensor([[1.0, 2.0], [3.0, 10.0]])).tolist() == [2.0, 6.0]


def test_median_takes_the_mean_of_the_two_in_the_middle() -> None:
    assert Median()(column(10, 1, 3, 2)).tolist() == [2.5]
    assert Median()(column(10, 1, 3)).tolist() == [3.0]
    rows = torch.tensor([[1.0, 9.0], [2.0, 7.0], [3.0, 8.0]])
    assert Median()(rows).tolist() == [2.0, 8.0]


def test_trimmed_mean_leaves_out_f_on_either_side() -> None:
    assert TrimmedMean(1)(column(100, 1, 2, 6, -100)).tolist() == [3.0]
    assert TrimmedMean(2)(column(100, 1, 2, 6, -100)).tolist() == [2.0]


def test_krum_by_hand() -> None:
    # m = 5, f = 1: squared distances to the two nearest others are 37, 26, 34, 25 and 65.
    # Distances that are not squared would choose 1, and m - f - 1 neighbours would choose 6.
    assert Krum(1)(column(0, 1, 6, 9, 13)).tolist() == [9.0]


def test_geometric_median_by_hand() -> None:
    # in one dimension it is the median; of a triangle the Fermat point
    assert GeometricMedian()(column(0, 1, 50)).item() == pytest.approx(1.0, abs=1e-3)
    corners = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, math.sqrt(3) / 2]])
    assert GeometricMedian()(corners).tolist() == pytest.approx([0.5, math.sqrt(3) / 6], abs=1e-5)
    # of a convex quadrilateral the crossing of the diagonals
    square = torch.tensor([[0.0, 0.0], [4.0, 4.0], [0.0, 2.0], [2.0, 0.0]])
    assert GeometricMedian()(square).tolist() == pytest.approx([1.0, 1.0], abs=1e-4)


def test_centered_clipping_by_hand() -> None:
    # from 0: (0 + 1 + clip(10, 2)) / 3 = 1; then from 1: 1 + (-1 + 0 + 2) / 3
    rows = column(0, 1, 10)
    assert CenteredClipping(tau=2.0)(rows).item() == pytest.approx(1.0)
    twice = CenteredClipping(tau=2.0, iterations=2)
    assert twice(rows).item() == pytest.approx(1 + 1 / 3)
    # around the row that is the caller's own
    assert CenteredClipping(tau=2.0)(rows, own=2).item() == pytest.approx(10 - 4 / 3)
    # with a wide tau one iteration is the mean, wherever it starts
    assert CenteredClipping(tau=100.0)(rows, own=2).item() == pytest.approx(11 / 3)


def test_nearest_neighbour_mixing_by_hand() -> None:
    # f = 1: every row becomes the mean of its two nearest; then one is trimmed on either side
    rows = column(0, 1, 10)
    mixed = [0.5, 0.5, 5.5]
    assert NNM(1)(rows).item() == pytest.approx(float(np.median(mixed)))
    assert NNM(1, Mean())(rows).item() == pytest.approx(float(np.mean(mixed)))


def test_among_duplicates_a_row_is_its_own_neighbour() -> None:
    rows = column(0, 0, 0, 5)
    assert NNM(3, Mean()).combine(rows, Context(f=3)).item() == pytest.approx(5 / 4)


def test_multi_krum_by_hand() -> None:
    # the scores of krum's example are 37, 26, 34, 25, 65; m - f - 2 = 2
    assert MultiKrum(1)(column(0, 1, 6, 9, 13)).item() == 5.0
    assert MultiKrum(1, selected=1)(column(0, 1, 6, 9, 13)).item() == 9.0


def test_minimum_diameter_by_hand() -> None:
    # without one of the ends: [1, 13] and [0, 9] have diameters 12 and 9
    assert MDA(1)(column(0, 1, 6, 9, 13)).item() == 4.0
    # 0 .. 4 and 1 .. 5 are as wide, and the second is tighter inside
    assert MDA(1)(column(0, 1, 4, 4, 5)).item() == 3.5


def test_the_covariance_filter_by_hand() -> None:
    # mean 25, farthest is 100: out. Then mean 0 with the smallest variance
    assert CAF(1)(column(0, 0, 0, 100)).item() == 0.0


def test_clipping_by_hand() -> None:
    rows = torch.tensor([[3.0, 4.0], [0.0, 1.0], [0.0, 0.0]])
    # to length 2.5: half of the first
    assert Clipping(0, Mean(), c=2.5)(rows).tolist() == pytest.approx([0.5, 1.0])
    # m = 3, f = 1: k = floor(4/3) = 1, so the longest is shortened to the length of the next
    assert ARC(1, Mean())(rows).tolist() == pytest.approx([0.2, 0.6])


def test_bucketing_by_hand() -> None:
    rows = column(1, 2, 4, 8, 16)
    order = np.random.default_rng(5).permutation(5)
    values = rows[:, 0].numpy()[order]
    buckets = [values[:2].mean(), values[2:4].mean(), values[4]]
    draw = np.random.default_rng(5)
    rule = Bucketing(1, Median(1))
    assert rule(rows, rng=draw).item() == pytest.approx(np.median(buckets))
    # another call draws again
    assert len({rule(rows, rng=draw).item() for _ in range(30)}) > 3
    with pytest.raises(ValueError, match="draws a permutation"):
        rule(rows)
