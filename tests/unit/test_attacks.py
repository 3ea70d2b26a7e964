"""Attacks against their closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tidings.api import Attack, View, attacks
from tidings.attacks.alie import ALIE, z_max
from tidings.attacks.ipm import IPM
from tidings.attacks.sign_flip import SignFlip
from tidings.errors import ConfigError

pytestmark = pytest.mark.unit

ALL: list[Attack] = [SignFlip(), ALIE(), ALIE(1.5), IPM()]


def view(honest: torch.Tensor, nodes: int = 0, attackers: int = 1) -> View:
    return View(honest, nodes=nodes or len(honest) + attackers, attackers=attackers, receiver=0)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def phi(z: float) -> float:
    """The standard normal distribution function."""
    return (1 + math.erf(z / math.sqrt(2))) / 2


def rows(count: int, dim: int = 50) -> torch.Tensor:
    return torch.from_numpy(rng().standard_normal((count, dim))).float()


def send(attack: Attack, honest: torch.Tensor, attackers: int = 1) -> torch.Tensor:
    return attack.corrupt(honest[0], view(honest, attackers=attackers), rng())


def test_sign_flip() -> None:
    honest = rows(3)
    assert torch.equal(send(SignFlip(), honest), -honest[0])
    assert torch.equal(send(SignFlip(4.0), honest), -4 * honest[0])
    # knowing others would change nothing
    assert torch.equal(send(SignFlip(), honest), send(SignFlip(), honest[:1]))


def test_ipm() -> None:
    honest = rows(6)
    assert torch.allclose(send(IPM(), honest), -0.5 * honest.mean(dim=0))
    assert torch.allclose(send(IPM(10.0), honest), -10 * honest.mean(dim=0))


@pytest.mark.parametrize(("epsilon", "turned"), [(1.9, False), (2.1, True)])
def test_ipm_turns_a_mean_round_above_h_over_f(epsilon: float, turned: bool) -> None:
    honest = rows(6)
    sent = send(IPM(epsilon), honest, attackers=3)
    mean = torch.cat([honest, sent.repeat(3, 1)]).mean(dim=0)
    assert bool(mean @ honest.mean(dim=0) < 0) is turned


def test_alie_by_hand() -> None:
    # mean 1 and 10, deviation 1 and 2 (squares divided by the number of rows)
    honest = torch.tensor([[0.0, 8.0], [2.0, 12.0]])
    assert send(ALIE(1.5), honest).tolist() == [-0.5, 7.0]
    assert send(ALIE(-1.5), honest).tolist() == [2.5, 13.0]


@pytest.mark.parametrize(
    ("nodes", "attackers", "quantile"),
    [
        (50, 24, 24 / 26),  # the paper's example: s = 2
        (50, 12, 24 / 38),
        (20, 8, 9 / 12),
        (10, 3, 4 / 7),
        (3, 1, 1 / 2),
        (4, 1, 1 / 3),
    ],
)
def test_alie_takes_z_from_the_counts(nodes: int, attackers: int, quantile: float) -> None:
    z = z_max(nodes, attackers)
    assert phi(z) == pytest.approx(quantile, abs=1e-12)
    honest = rows(nodes - attackers)
    exact = honest.mean(dim=0) - z * honest.std(dim=0, correction=0)
    assert torch.allclose(send(ALIE(), honest, attackers), exact, atol=1e-6)


@pytest.mark.parametrize(
    ("nodes", "attackers", "quantile"),
    [
        (1, 1, 1 / 2),  # no honest node: as if there were one
        (2, 1, 1 / 2),  # 0 of 1
        (2, 2, 1 / 2),
        (3, 2, 1 / 2),  # 1 of 1
        (5, 3, 2 / 3),  # 2 of 2
        (5, 4, 1 / 2),  # 2 of 1
        (2, 0, 1 / 3),  # 0 of 2
    ],
)
def test_an_impossible_quantile_is_held_to_what_samples_can_show(
    nodes: int, attackers: int, quantile: float
) -> None:
    assert phi(z_max(nodes, attackers)) == pytest.approx(quantile, abs=1e-12)


def test_the_clamp_changes_nothing_that_is_possible() -> None:
    for nodes in range(1, 40):
        for attackers in range(nodes):
            honest = nodes - attackers
            quantile = (honest - (nodes // 2 + 1 - attackers)) / honest
            if 0 < quantile < 1:
                assert phi(z_max(nodes, attackers)) == pytest.approx(quantile, abs=1e-12)
            assert math.isfinite(z_max(nodes, attackers))


def test_alie_with_one_honest_vector_sends_it() -> None:
    honest = rows(1)
    assert torch.allclose(send(ALIE(2.0), honest), honest[0])


@pytest.mark.parametrize("attack", ALL, ids=str)
def test_a_new_float32_vector_and_nothing_changed(attack: Attack) -> None:
    honest = rows(7)
    before = honest.clone()
    sent = send(attack, honest, attackers=4)
    assert sent.dtype == torch.float32
    assert sent.shape == (50,)
    assert torch.equal(sent, send(attack, honest, attackers=4))
    sent.fill_(9)
    assert torch.equal(honest, before)


def test_what_they_must_know() -> None:
    assert {name: attacks.get(name).knowledge for name in ("sign_flip", "alie", "ipm")} == {
        "sign_flip": "own",
        "alie": "neighbors",
        "ipm": "neighbors",
    }
    for attack in ALL:
        assert Attack.parse(attack.config()) == attack


@pytest.mark.parametrize(
    "config",
    [
        {"kind": "sign_flip", "scale": 0.0},
        {"kind": "sign_flip", "scale": math.inf},
        {"kind": "ipm", "epsilon": -1.0},
        {"kind": "ipm", "epsilon": math.nan},
        {"kind": "alie", "z": math.nan},
    ],
)
def test_impossible_parameters_are_refused(config: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        Attack.parse(config)
