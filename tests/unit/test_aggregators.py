"""Aggregators: symmetries, what bad rows can do to them, and parameters."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tidings.aggregators.arc import ARC
from tidings.aggregators.bucketing import Bucketing
from tidings.aggregators.caf import CAF
from tidings.aggregators.centered_clipping import CenteredClipping
from tidings.aggregators.clipping import Clipping
from tidings.aggregators.density import Density
from tidings.aggregators.geometric_median import GeometricMedian
from tidings.aggregators.krum import Krum
from tidings.aggregators.mda import MDA
from tidings.aggregators.mean import Mean
from tidings.aggregators.median import Median
from tidings.aggregators.multi_krum import MultiKrum
from tidings.aggregators.nnm import NNM
from tidings.aggregators.trimmed_mean import TrimmedMean
from tidings.api import Aggregator, Context, aggregators
from tidings.errors import ConfigError

pytestmark = pytest.mark.unit

ROBUST: list[Aggregator] = [
    Median(3),
    TrimmedMean(3),
    Krum(3),
    GeometricMedian(3),
    CenteredClipping(3, tau=2.0),
    CenteredClipping(3, tau=2.0, iterations=5),
    NNM(3),
    NNM(3, Krum(3)),
    NNM(3, Median(3)),
    MultiKrum(3),
    MultiKrum(3, selected=2),
    MDA(3),
    CAF(3),
    NNM(3, CAF(3)),
    ARC(3),
    ARC(3, NNM(3, Krum(3))),
]
#: an offset changes who is long
BOUND_TO_THE_ORIGIN = (ARC, Clipping)
ALL = [Mean(), *ROBUST]


def column(*values: float) -> torch.Tensor:
    """One coordinate a row."""
    return torch.tensor(values, dtype=torch.float32)[:, None]


def normal(rows: int, dim: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((rows, dim))).float()


def grid(rows: int, dim: int, seed: int = 0) -> torch.Tensor:
    """Multiples of 1/64, so that adding up to 10^5 to them is exact in float32."""
    return torch.round(normal(rows, dim, seed) * 64) / 64


# -- f that is passed in -----------------------------------------------------------------------


def test_a_row_that_is_not_finite_is_one_of_the_f() -> None:
    nan = math.nan
    assert TrimmedMean(1)(column(0, 2, nan, 7)).item() == 3.0
    # the dropped one counts, so one of the rest is trimmed still
    assert TrimmedMean(2)(column(0, 2, 3, nan, 100)).item() == 2.5
    # nnm passes the lower f on: two rows, each the mean of both
    assert NNM(1)(column(0, 2, nan)).item() == 1.0


def test_too_few_rows_lower_f_and_are_answered() -> None:
    assert TrimmedMean(2)(column(0, 1, 100)).item() == 1.0
    assert TrimmedMean(2)(column(0, 1)).item() == 0.5
    assert Krum(3)(column(0, 1, 100)).item() in (0.0, 1.0)
    assert NNM(2)(column(0, 1, 100)).item() == 0.5


@pytest.mark.parametrize("rule", ALL, ids=str)
@pytest.mark.parametrize("rows", [1, 2, 3, 4])
def test_few_rows_are_answered_within_them(rule: Aggregator, rows: int) -> None:
    values = normal(rows, 5)
    out = rule(values, own=rows - 1)
    low, high = values.min(dim=0).values, values.max(dim=0).values
    assert ((out >= low - 1e-5) & (out <= high + 1e-5)).all()


def test_krum_of_fewer_than_three_is_the_own_row() -> None:
    for own in (0, 1):
        assert Krum(1)(column(3, 4), own=own).item() == 3 + own


def test_the_own_row_is_found_after_others_were_dropped() -> None:
    rows = column(math.nan, 0, math.inf, 8)
    assert CenteredClipping(tau=1.0)(rows, own=3).item() == pytest.approx(7.5)


@pytest.mark.parametrize(
    ("rule", "fewest"),
    [
        (Mean(), 1),
        (Median(2), 5),
        (TrimmedMean(2), 5),
        (Krum(2), 7),
        (GeometricMedian(2), 5),
        (CenteredClipping(2), 5),
        (NNM(2), 5),
        (NNM(2, Krum(2)), 7),
        (MultiKrum(2), 7),
        (MultiKrum(2, selected=4), 8),
        (MDA(2), 5),
        (CAF(2), 5),
        (ARC(2), 5),
        (ARC(2, NNM(2, Krum(2))), 7),
        (Bucketing(2), 9),
        (Bucketing(2, Krum(2), s=3), 19),
    ],
    ids=str,
)
def test_check_names_the_fewest_rows(rule: Aggregator, fewest: int) -> None:
    rule.check(fewest)
    with pytest.raises(ValueError, match=f"{rule.kind} .* at least {fewest} rows"):
        rule.check(fewest - 1)


WITHOUT_BAD_ROWS = [TrimmedMean(0), NNM(0), MDA(0), CAF(0), ARC(0), NNM(0, CAF(0))]


@pytest.mark.parametrize("rule", WITHOUT_BAD_ROWS, ids=str)
def test_without_bad_rows_it_is_the_mean(rule: Aggregator) -> None:
    rows = normal(7, 40)
    assert torch.allclose(rule(rows), rows.mean(dim=0), atol=1e-6)


def test_krum_without_bad_rows_is_still_one_of_them() -> None:
    rows = normal(7, 40)
    assert any(torch.equal(Krum(0)(rows), row) for row in rows)


# -- symmetries --------------------------------------------------------------------------------


# not CAF on mixed rows, which are nearly equal: how it weighs them is up to rounding
@pytest.mark.parametrize("rule", [rule for rule in ALL if "then=CAF" not in str(rule)], ids=str)
@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10_000))
def test_the_order_of_rows_does_not_matter(rule: Aggregator, seed: int) -> None:
    rows = normal(11, 9, seed)
    order = np.random.default_rng(seed).permutation(11)
    permuted = rule(rows[torch.from_numpy(order)], own=int(np.flatnonzero(order == 0)[0]))
    assert torch.allclose(rule(rows, own=0), permuted, atol=1e-6)


# An offset that is much larger than the distances must not blur them.
@pytest.mark.parametrize("rule", ALL, ids=str)
@pytest.mark.parametrize("offset", [1e3, 3e4])
def test_it_moves_with_an_offset(rule: Aggregator, offset: float) -> None:
    rows = grid(11, 60)
    if isinstance(rule, BOUND_TO_THE_ORIGIN):
        assert float((rule(rows + offset) - offset - rule(rows)).norm()) > 0.1
        return
    moved = rule(rows + offset) - offset
    # what an output rounded to float32 near the offset can show
    assert torch.allclose(moved, rule(rows), rtol=0, atol=2 * offset * 2.0**-24)


@pytest.mark.parametrize("rule", ALL, ids=str)
@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_equal_rows_give_that_row(rule: Aggregator, scale: float) -> None:
    row = normal(1, 40) * scale + (1e3 if scale == 1 else 0)
    assert torch.equal(rule(row.repeat(9, 1)), row[0])


@pytest.mark.parametrize("rule", ALL, ids=str)
def test_dtype_shape_determinism_and_no_aliasing(rule: Aggregator) -> None:
    # more columns than one block
    rows = normal(9, 9000)
    before = rows.clone()
    out = rule(rows, own=1)
    assert out.dtype == torch.float32
    assert out.shape == (9000,)
    assert torch.equal(out, rule(rows, own=1))
    out.fill_(7)
    assert torch.equal(rows, before)


@pytest.mark.parametrize("rule", ALL, ids=str)
def test_a_result_is_no_view_of_the_only_row(rule: Aggregator) -> None:
    rows = normal(1, 6)
    before = rows.clone()
    rule(rows).fill_(7)
    rule.combine(rows, Context()).fill_(7)
    assert torch.equal(rows, before)


@pytest.mark.parametrize("rule", ALL, ids=str)
def test_blocks_of_columns_are_put_together(rule: Aggregator) -> None:
    rows = normal(9, 5000)
    columns = torch.from_numpy(np.random.default_rng(1).permutation(5000))
    assert torch.allclose(rule(rows)[columns], rule(rows[:, columns]), atol=1e-6)


# -- bad rows ----------------------------------------------------------------------------------


def spread(honest: torch.Tensor) -> float:
    """The largest distance of an honest row to the honest mean."""
    return float((honest - honest.mean(dim=0)).norm(dim=1).max())


BAD = st.sampled_from([math.nan, math.inf, -math.inf, 1e30, -1e30, 3e38, 1e4, -50.0])


def registered(f: int) -> list[Aggregator]:
    """Every robust rule of the registry, those of plug-ins to come as well, built for ``f``."""
    rules = [aggregators.get(name) for name in sorted(aggregators)]
    return [
        Aggregator.parse({"kind": rule.kind, "f": f})
        for rule in rules
        if rule.robust and rule.kind != "agrxai"  # needs a problem
    ]


NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


@pytest.mark.parametrize("rule", registered(2), ids=lambda rule: rule.kind)
@pytest.mark.parametrize("value", NOT_FINITE.values(), ids=NOT_FINITE)
@pytest.mark.parametrize("bad", [1, 2, 10])
def test_rows_that_are_not_finite_are_left_out(rule: Aggregator, value: float, bad: int) -> None:
    """One bad row, f of them, all but the own: the answer is that of the others with f lowered."""
    rows = normal(11, 6) * 0.1  # too short to be clipped
    own = 4
    places = [i for i in range(11) if i != own][:bad]
    rows[places] = value
    # in one coordinate only: as bad as all of it
    rows[places[0]] = 0.1 * normal(1, 6)[0]
    rows[places[0], 3] = value
    kept = [i for i in range(11) if i not in places]
    out = rule(rows, own=own, rng=np.random.default_rng(1))
    assert out.isfinite().all()
    lowered = Aggregator.parse({"kind": rule.kind, "f": max(0, rule.bad_rows - bad)})
    alone = lowered(rows[kept], own=kept.index(own), rng=np.random.default_rng(1))
    assert torch.equal(out, alone)
    if bad == 10:
        length = float(rows[own].norm()) if isinstance(rule, Density) else 1.0
        torch.testing.assert_close(out * length, rows[own], rtol=1e-6, atol=0)


# Nine honest rows and three bad ones, each bad in all or in one of its coordinates.
@pytest.mark.parametrize("rule", ROBUST, ids=str)
@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 1000),
    bad=st.lists(st.tuples(BAD, st.booleans()), min_size=3, max_size=3),
    offset=st.sampled_from([0.0, 1e3]),
)
def test_bad_rows_do_not_carry_it_away(
    rule: Aggregator, seed: int, bad: list[tuple[float, bool]], offset: float
) -> None:
    rows = normal(12, 10, seed) + offset
    places = np.random.default_rng(seed).choice(np.arange(1, 12), 3, replace=False)
    for place, (value, everywhere) in zip(places, bad, strict=True):
        rows[place, slice(None) if everywhere else slice(4, 5)] = value
    honest = rows[[i for i in range(12) if i not in places]]
    out = rule(rows, own=0)
    assert out.isfinite().all()
    assert float((out - honest.mean(dim=0)).norm()) <= 2 * spread(honest)


@pytest.mark.parametrize("then", [Median(1), Krum(1), CAF(1)], ids=str)
def test_a_bad_row_spoils_one_bucket(then: Aggregator) -> None:
    draw = np.random.default_rng(0)
    for _ in range(50):
        rows = normal(12, 5)
        rows[3] = 1e6
        honest = rows[[i for i in range(12) if i != 3]]
        out = Bucketing(1, then)(rows, rng=draw)
        assert float((out - honest.mean(dim=0)).norm()) <= 2 * spread(honest)


@pytest.mark.parametrize("rule", ROBUST, ids=str)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_breakdown(rule: Aggregator, sign: float) -> None:
    """However far f colluding rows go, what they do stays bounded by the honest spread."""
    moved = []
    for distance in (1e2, 1e6, 1e12, 1e20, 1e37):
        rows = normal(12, 20)
        rows[[2, 5, 9]] = sign * distance
        honest = rows[[i for i in range(12) if i not in (2, 5, 9)]]
        moved.append(float((rule(rows) - honest.mean(dim=0)).norm()) / spread(honest))
    assert max(moved) < 2
    assert moved[-1] == pytest.approx(moved[1], abs=0.05)


def test_the_mean_is_poisoned_by_one_row() -> None:
    rows = normal(12, 4)
    rows[3] = 1e30
    assert float(Mean()(rows).norm()) > 1e28
    rows[3] = math.nan
    assert Mean()(rows).isnan().all()


@pytest.mark.parametrize("rule", ALL, ids=str)
def test_huge_rows_do_not_overflow(rule: Aggregator) -> None:
    rows = normal(9, 8).sign() * 3e38
    assert rule(rows).isfinite().all()


def test_only_rows_that_are_not_finite_cannot_be_combined() -> None:
    with pytest.raises(ValueError, match="no finite row"):
        Median()(torch.full((3, 2), math.nan))


# -- parameters --------------------------------------------------------------------------------


def test_all_are_found_by_name_and_keep_their_parameters() -> None:
    names = {"mean", "median", "trimmed_mean", "krum", "geometric_median", "centered_clipping"}
    assert names | {"nnm"} <= set(aggregators)
    for rule in ALL:
        assert Aggregator.parse(rule.config()) == rule


def test_nnm_holds_another_rule() -> None:
    assert NNM(2).then == TrimmedMean(2)
    parsed = Aggregator.parse({"kind": "nnm", "f": 2, "then": {"kind": "krum", "f": 2}})
    assert parsed == NNM(2, Krum(2))
    with pytest.raises(ConfigError) as caught:
        Aggregator.parse({"kind": "nnm", "f": 2, "then": {"kind": "krumm"}})
    assert caught.value.path == ("then", "kind")


@pytest.mark.parametrize(
    "config",
    [
        {"kind": "median", "f": -1},
        {"kind": "trimmed_mean", "f": -1},
        {"kind": "trimmed_mean"},
        {"kind": "krum", "f": -1},
        {"kind": "geometric_median", "f": -1},
        {"kind": "geometric_median", "iterations": 0},
        {"kind": "geometric_median", "smoothing": 0.0},
        {"kind": "centered_clipping", "f": -1},
        {"kind": "centered_clipping", "tau": 0.0},
        {"kind": "centered_clipping", "iterations": 0},
        {"kind": "nnm", "f": -1},
        {"kind": "nnm", "f": 1, "then": {"kind": "krum", "f": 2}},
        {"kind": "multi_krum", "f": 1, "selected": 0},
        {"kind": "multi_krum", "f": -1},
        {"kind": "mda", "f": -1},
        {"kind": "caf", "f": -1},
        {"kind": "bucketing", "f": 1, "s": 0},
        {"kind": "clipping", "f": 1, "c": 0.0},
        {"kind": "arc", "f": 1, "then": {"kind": "krum", "f": 2}},
    ],
)
def test_impossible_parameters_are_refused(config: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        Aggregator.parse(config)
