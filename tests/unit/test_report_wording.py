"""Quantities as the report writes them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidings_coordinator.report import costs, wording

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.33154, "0.3315"),
        (0.1, "0.1"),
        (-2.5, "−2.5"),
        (12345.6, "12,346"),
        (0.0002, "0.0002"),
        (8.1141e-8, "8.114×10⁻⁸"),
        (1.5e20, "1.500×10²⁰"),
        (math.nan, "—"),
        (math.inf, "—"),
        (None, "—"),
    ],
)
def test_numbers(value: float | None, text: str) -> None:
    assert wording.number(value) == text


@pytest.mark.parametrize(
    ("span_s", "text"),
    [
        (0, "0 s"),
        (17.9806, "18 s"),
        (0.041144, "41.1 ms"),
        (-0.0005, "−500 µs"),
        (125, "2 min 5 s"),
        (11520, "3 h 12 min"),
        (None, "—"),
    ],
)
def test_seconds(span_s: float | None, text: str) -> None:
    assert wording.seconds(span_s) == text


@pytest.mark.parametrize(
    ("bit_per_s", "text"),
    [(20029171.1, "20.03 Mbit/s"), (1e9, "1 Gbit/s"), (9600, "9.6 kbit/s"), (10, "10 bit/s")],
)
def test_rates(bit_per_s: float, text: str) -> None:
    assert wording.rate(bit_per_s) == text


def test_sizes_and_counts() -> None:
    assert wording.size(488_580_320) == "488.6 MB"
    assert wording.size(3.2e12) == "3.2 TB"
    assert wording.count(2400) == "2,400"
    assert wording.count(65.625) == "65.6"
    assert wording.plural(1, "node") == "1 node"
    assert wording.plural(1200, "node") == "1,200 nodes"
    assert wording.error(-0.234) == "−23.40 %"


@pytest.mark.parametrize(
    ("cost", "values", "text"),
    [
        ("bytes", [184.2e6, 196.2e6, 172.2e6], "184 ± 12 MB"),
        ("bytes", [1.5e9], "1.5 GB"),
        ("seconds", [0.25, 0.35], "300 ± 71 ms"),
        ("seconds", [600.0, 660.0], "10.50 ± 0.71 min"),
        ("rounds", [60, 60, 60], "60 ± 0"),
        # sample standard deviation sqrt(50) of 50 and 60
        ("rounds", [50, 60], "55.0 ± 7.1"),
    ],
)
def test_mean_and_deviation_share_one_unit(
    cost: costs.Cost, values: list[float], text: str
) -> None:
    assert costs.spread(cost, values) == text


@settings(deadline=None, max_examples=50)
@given(st.floats(1e-4, 9.9e5))
def test_a_number_read_back_is_right_to_four_digits(value: float) -> None:
    read = float(wording.number(value).replace(",", ""))
    assert read == pytest.approx(value, rel=6e-4)
