"""Draws of loss and jitter: reproducible, independent, and of the distributions they claim."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest

from tidings.links.shape import Dice, JitterKind, LinkShape, serialization_ns

pytestmark = pytest.mark.unit

DRAWS = 20_000
SCALE_NS = 1_000_000


def jitters(kind: JitterKind, dice: Dice | None = None) -> np.ndarray:
    """Draws in units of the scale."""
    dice = dice or Dice(7, 0, 1)
    shape = LinkShape(jitter_ns=SCALE_NS, jitter_kind=kind)
    return np.array([dice.draw(shape, k).jitter_ns for k in range(DRAWS)]) / SCALE_NS


def losses(probability: float, dice: Dice) -> np.ndarray:
    shape = LinkShape(loss=probability)
    return np.array([dice.draw(shape, k).lost for k in range(DRAWS)])


@pytest.mark.parametrize("probability", [0.001, 0.1, 0.5, 0.9])
def test_loss_frequency(probability: float) -> None:
    sigma = math.sqrt(probability * (1 - probability) / DRAWS)
    assert losses(probability, Dice(1, 2, 3)).mean() == pytest.approx(probability, abs=4 * sigma)


def test_loss_at_the_ends() -> None:
    assert not losses(0.0, Dice(1, 2, 3)).any()
    assert losses(1.0, Dice(1, 2, 3)).all()


def quantile(kind: JitterKind, p: float) -> float:
    """Of unit scale; the Pareto (Lomax) has tail index 2.5 and mean 1."""
    return {
        "uniform": 2 * p - 1,
        "normal": NormalDist().inv_cdf(p),
        "exponential": -math.log(1 - p),
        "pareto": 1.5 * ((1 - p) ** (-1 / 2.5) - 1),
    }[kind]


@pytest.mark.parametrize("kind", ["uniform", "normal", "exponential", "pareto"])
def test_jitter_follows_its_distribution(kind: JitterKind) -> None:
    sample = np.sort(jitters(kind))
    for p in (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99):
        # the fraction of draws below the p-quantile is p, to within 4 sigma
        below = np.searchsorted(sample, quantile(kind, p)) / DRAWS
        assert below == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / DRAWS))


@pytest.mark.parametrize(
    ("kind", "mean", "deviation"),
    [
        ("uniform", 0.0, 1 / math.sqrt(3)),
        ("normal", 0.0, 1.0),
        ("exponential", 1.0, 1.0),
        ("pareto", 1.0, math.sqrt(5)),  # mean 1, variance a / (a - 2) for tail index a
    ],
)
def test_jitter_has_the_scale_that_is_documented(
    kind: JitterKind, mean: float, deviation: float
) -> None:
    assert jitters(kind).mean() == pytest.approx(mean, abs=4 * deviation / math.sqrt(DRAWS))


@pytest.mark.parametrize("kind", ["exponential", "pareto"])
def test_one_sided_jitter_only_adds(kind: JitterKind) -> None:
    assert jitters(kind).min() >= 0


def test_uniform_jitter_stays_within_its_half_width() -> None:
    assert np.abs(jitters("uniform")).max() <= 1


def test_the_same_message_always_has_the_same_fate() -> None:
    shape = LinkShape(loss=0.5, jitter_ns=SCALE_NS)
    forward = [Dice(3, 1, 2).draw(shape, k) for k in range(100)]
    dice = Dice(3, 1, 2)
    assert [dice.draw(shape, k) for k in reversed(range(100))] == forward[::-1]


def test_loss_does_not_depend_on_the_jitter_that_is_asked_for() -> None:
    with_jitter = LinkShape(loss=0.3, jitter_ns=SCALE_NS, jitter_kind="pareto")
    fates = [Dice(3, 1, 2).draw(with_jitter, k).lost for k in range(500)]
    assert fates == losses(0.3, Dice(3, 1, 2))[:500].tolist()


@pytest.mark.parametrize("other", [Dice(1, 0, 2), Dice(1, 1, 0), Dice(2, 0, 1), Dice(1, 10, 1)])
def test_other_links_and_seeds_have_other_fates(other: Dice) -> None:
    mine = jitters("uniform", Dice(1, 0, 1))
    correlation = np.corrcoef(mine, jitters("uniform", other))[0, 1]
    assert abs(correlation) < 4 / math.sqrt(DRAWS)


def test_neighbouring_messages_have_independent_fates() -> None:
    sample = jitters("uniform")
    lost = losses(0.3, Dice(7, 0, 1))
    assert abs(np.corrcoef(sample[1:], sample[:-1])[0, 1]) < 4 / math.sqrt(DRAWS)
    assert abs(np.corrcoef(sample, lost)[0, 1]) < 4 / math.sqrt(DRAWS)


def test_links_0_to_11_and_01_to_1_are_not_confused() -> None:
    # keys are made of text: "1:0->11" must differ from any other pair that reads alike
    assert jitters("uniform", Dice(1, 0, 11))[0] != jitters("uniform", Dice(10, 0, 11))[0]
    assert jitters("uniform", Dice(1, 0, 11))[0] != jitters("uniform", Dice(1, 1, 1))[0]


def test_serialization() -> None:
    assert serialization_ns(125, 1e6) == 1_000_000
    assert serialization_ns(1, math.inf) == 0
    assert serialization_ns(1, 3e9) == 3  # 2.67 ns


def test_shaped() -> None:
    assert not LinkShape().shaped
    assert not LinkShape(queue_bytes=1).shaped
    assert LinkShape(rate_bit_per_s=1e9).shaped
    assert LinkShape(delay_ns=1).shaped
    assert LinkShape(loss=0.01).shaped
