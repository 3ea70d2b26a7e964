"""The failure detector: who is suspected when, with time passed in."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidings.runtime.detector import Detector

pytestmark = pytest.mark.unit


def test_silence_is_suspicious_exactly_after_the_limit() -> None:
    detector = Detector([1, 2], 5.0, now_s=10.0)
    assert detector.next_s(10.0) == 15.0
    assert detector.silent(14.999) == {}
    detector.heard(1, 13.0)
    assert detector.silent(15.0) == {2: 5.0}
    assert detector.next_s(15.0) == 18.0
    assert detector.silent(18.0) == {1: 5.0, 2: 8.0}
    assert detector.next_s(18.0) == math.inf


def test_who_is_heard_again_is_trusted_again() -> None:
    detector = Detector([1], 1.0, now_s=0.0)
    assert detector.silent(3.0) == {1: 3.0}
    detector.heard(1, 3.5)
    assert detector.silent(4.4) == {}
    assert detector.silent(4.5) == {1: 1.0}


def test_who_could_not_hear_accuses_nobody() -> None:
    detector = Detector([1, 2], 1.0, now_s=0.0)
    detector.deaf(100.0)
    assert detector.silent(100.9) == {}
    assert detector.next_s(100.0) == 101.0


def test_strangers_are_not_watched() -> None:
    detector = Detector([1], 1.0, now_s=0.0)
    detector.heard(7, 0.0)
    assert detector.silent(9.0) == {1: 9.0}


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1000)), max_size=40),
    st.integers(1, 200),
    st.integers(0, 2000),
)
def test_it_suspects_exactly_those_whose_last_sign_is_older_than_the_limit(
    signs: list[tuple[int, int]], limit: int, now: int
) -> None:
    detector = Detector(range(4), limit, now_s=0)
    last = dict.fromkeys(range(4), 0)
    for peer, at in sorted(signs, key=lambda sign: sign[1]):
        if at <= now:
            detector.heard(peer, at)
            last[peer] = at
    want = {peer for peer, at in last.items() if now - at >= limit}
    assert set(detector.silent(now)) == want
    later = [at + limit for at in last.values() if at + limit > now]
    assert detector.next_s(now) == min(later, default=math.inf)
