"""Quantities: what is read, what is refused, and that what is printed reads back as itself."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from tidings.units import Duration, Quantity, Rate, Ratio, Size

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Duration, "20ms", 0.020),
        (Duration, "20 ms", 0.020),
        (Duration, " 1.5s ", 1.5),
        (Duration, "3us", 3e-6),
        (Duration, "3µs", 3e-6),
        (Duration, "7ns", 7e-9),
        (Duration, "2min", 120.0),
        (Duration, "2m", 120.0),
        (Duration, "1h", 3600.0),
        (Duration, "1e-3s", 0.001),
        (Duration, "0s", 0.0),
        (Rate, "20Mbit/s", 20e6),
        (Rate, "20Mbit", 20e6),
        (Rate, "1Gbit/s", 1e9),
        (Rate, "9.6kbit/s", 9600.0),
        (Rate, "5bit/s", 5.0),
        (Rate, ".5Mbit/s", 5e5),
        (Rate, "unlimited", math.inf),
        (Size, "64KiB", 65536),
        (Size, "1MiB", 2**20),
        (Size, "2GiB", 2**31),
        (Size, "10B", 10),
        (Size, "3MB", 3_000_000),
        (Size, "1.5kB", 1500),
        (Ratio, "5%", 0.05),
        (Ratio, "0.05", 0.05),
        (Ratio, 0.05, 0.05),
        (Ratio, 1, 1.0),
        (Ratio, "100%", 1.0),
        (Ratio, "0%", 0.0),
    ],
)
def test_what_is_read(kind: type[Quantity], text: object, value: float) -> None:
    parsed = kind.parse(text)
    assert type(parsed) is kind
    assert parsed == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize(
    ("kind", "text", "why"),
    [
        (Duration, 20, "needs a unit, for example '20ms'"),
        (Duration, 20.0, "needs a unit"),
        (Duration, None, "needs a unit"),
        (Duration, True, "needs a unit"),
        (Duration, "20", "is not a duration"),
        (Duration, "ms", "is not a duration"),
        (Duration, "-5ms", "is not a duration"),
        (Duration, "5 parsecs", "units: ns, us, ms, s, min, h"),
        (Duration, "5ms later", "is not a duration"),
        (Duration, "infs", "is not a duration"),
        (Duration, "nans", "is not a duration"),
        (Duration, "", "is not a duration"),
        (Rate, 20e6, "needs a unit, for example '20Mbit/s'"),
        (Rate, "20MB/s", "is not a rate"),
        (Rate, "20mbit/s", "is not a rate"),
        (Rate, "0Mbit/s", "above zero"),
        (Size, 64, "needs a unit, for example '64KiB'"),
        (Size, "64kb", "is not a size"),
        (Size, "0.5B", "whole number of bytes"),
        (Size, "1.0001kB", "whole number of bytes"),
        (Ratio, "101%", "between 0% and 100%"),
        (Ratio, 1.01, "between 0% and 100%"),
        (Ratio, -0.1, "between 0% and 100%"),
        (Ratio, math.nan, "between 0% and 100%"),
        (Ratio, True, "needs a unit"),
        (Ratio, "half", "is not a ratio"),
    ],
)
def test_what_is_refused(kind: type[Quantity], text: object, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        kind.parse(text)


@pytest.mark.parametrize(
    ("quantity", "text"),
    [
        (Duration(0.02), "20ms"),
        (Duration(90), "90s"),
        (Duration(120), "2min"),
        (Duration(0), "0s"),
        (Duration(2e-9), "2ns"),
        (Rate(20e6), "20Mbit/s"),
        (Rate(math.inf), "unlimited"),
        (Size(65536), "64KiB"),
        (Size(1000), "1000B"),
        (Ratio(0.05), "5%"),
        (Ratio(0.001), "0.1%"),
        (Ratio(1 / 3), "0.3333333333333333"),
    ],
)
def test_what_is_printed(quantity: Quantity, text: str) -> None:
    assert str(quantity) == text
    assert repr(quantity) == f"{type(quantity).__name__}('{text}')"


@settings(deadline=None, max_examples=50)
@given(st.floats(0, 1e12), st.floats(0, 1), st.floats(1e-3, 1e15))
def test_what_is_printed_reads_back(seconds: float, share: float, rate: float) -> None:
    for quantity in (Duration(seconds), Ratio(share), Rate(rate)):
        assert float(quantity.parse(str(quantity))) == float(quantity)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**53))
def test_a_printed_size_reads_back(size: int) -> None:
    assert Size.parse(str(Size(size))) == size


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**15))
def test_a_duration_in_nanoseconds(ns: int) -> None:
    assert Duration.parse(f"{ns}ns").ns == ns


def test_quantities_are_taken_as_they_are_but_not_for_each_other() -> None:
    assert Duration.parse(Duration(3)) == 3
    with pytest.raises(ValueError, match="needs a unit"):
        Duration.parse(Rate(3))


def test_they_are_fields_of_pydantic_models() -> None:
    class Link(BaseModel):
        """A model with quantities."""

        rate: Rate
        delay: Duration = Duration(0)

    link = Link.model_validate({"rate": "1Mbit/s", "delay": "2ms"})
    assert link.model_dump_json() == '{"rate":"1Mbit/s","delay":"2ms"}'
    assert Link.model_validate_json(link.model_dump_json()) == link
    assert Link.model_json_schema()["properties"]["rate"]["examples"] == ["20Mbit/s"]


def test_a_duration_fits_into_nanoseconds() -> None:
    assert Duration.parse("1e12s").ns == 10**21
    with pytest.raises(ValueError, match="too large a duration"):
        Duration.parse("1e300s")
