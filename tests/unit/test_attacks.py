"""Attacks against their closed forms."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tidings.api import Attack, View, attacks
from tidings.attacks.alie import ALIE, z_max
from tidings.attacks.envelope import Direction
from tidings.attacks.equivocation import Equivocation
from tidings.attacks.gaussian import Gaussian
from tidings.attacks.ipm import IPM
from tidings.attacks.label_flip import LabelFlip
from tidings.attacks.mimic import Mimic
from tidings.attacks.min_max import MinMax
from tidings.attacks.min_sum import MinSum
from tidings.attacks.scale import Scale
from tidings.attacks.shift_back import ShiftBack
from tidings.attacks.sign_flip import SignFlip
from tidings.attacks.zero import Zero
from tidings.errors import ConfigError

pytestmark = pytest.mark.unit

ALL: list[Attack] = [
    SignFlip(),
    ALIE(),
    ALIE(1.5),
    IPM(),
    MinMax(),
    MinMax("unit"),
    MinSum(),
    MinSum("sign"),
    Mimic(),
    Mimic(who=3),
    LabelFlip(),
    Equivocation(),
    Equivocation(Mimic(), odd="truth"),
    Scale(),
    Zero(),
    Gaussian(),
]


def view(honest: torch.Tensor, nodes: int = 0, attackers: int = 1) -> View:
    nodes = nodes or len(honest) + attackers
    return View(honest, nodes, attackers, receiver=0, sources=tuple(range(len(honest))))


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


# -- as far out as the honest are ------------------------------------------------------------------

DIRECTIONS: list[Direction] = ["std", "unit", "sign"]


def test_min_max_by_hand() -> None:
    # mean 2, deviation sqrt(8/3); the honest are 4 apart, so -2 is as far from 2 + 2 as one may go
    honest = torch.tensor([[0.0], [2.0], [4.0]])
    for direction in DIRECTIONS:
        assert send(MinMax(direction), honest).item() == pytest.approx(0.0, abs=1e-6)


def test_min_sum_by_hand() -> None:
    # the most is 0 + 4 + 16 = 20; around the mean 8 are used, so 3 gamma^2 = 12
    honest = torch.tensor([[0.0], [2.0], [4.0]])
    for direction in DIRECTIONS:
        assert send(MinSum(direction), honest).item() == pytest.approx(0.0, abs=1e-6)
    # in the plane: mean (1, 0), p = -(1, 0); sums are 4 + 4 = 8 at most, 8/3 around the mean
    corners = torch.tensor([[0.0, 1.0], [3.0, 0.0], [0.0, -1.0]])
    sums = [4 + 10, 10 + 10, 4 + 10]
    around = (1 + 1) + 4 + (1 + 1)
    gamma = math.sqrt((max(sums) - around) / 3)
    assert send(MinSum("unit"), corners).tolist() == pytest.approx([1 - gamma, 0.0], abs=1e-6)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("seed", range(5))
def test_they_go_exactly_as_far_as_allowed(direction: Direction, seed: int) -> None:
    honest = torch.from_numpy(np.random.default_rng(seed).standard_normal((9, 30)) + 1).float()
    apart = torch.cdist(honest.double(), honest.double())

    def distances(lie: torch.Tensor) -> torch.Tensor:
        return (honest.double() - lie.double()).norm(dim=1)

    lie = send(MinMax(direction), honest)
    assert float(distances(lie).max()) == pytest.approx(float(apart.max()), rel=1e-5)
    lie = send(MinSum(direction), honest)
    most = float(apart.square().sum(dim=1).max())
    assert float(distances(lie).square().sum()) == pytest.approx(most, rel=1e-5)


@pytest.mark.parametrize("attack", [MinMax(), MinMax("unit"), MinSum(), MinSum("unit")], ids=str)
def test_among_equals_they_send_the_same(attack: Attack) -> None:
    honest = torch.ones(4, 3)
    assert send(attack, honest).tolist() == [1.0, 1.0, 1.0]


# -- whom to repeat --------------------------------------------------------------------------------


def mimic_view(honest: torch.Tensor, sources: tuple[int, ...], round_: int, memory: object) -> View:
    made = View(honest, 9, 1, 0, sources=sources, round=round_)
    return replace(made, memory=memory)


def test_mimic_repeats_the_one_that_stands_out_and_keeps_to_it() -> None:
    attack, memory = Mimic(), dict[str, object]()
    #                       own    5     6     7     8
    honest = torch.tensor([[9.0, 9], [0, 1], [0, -1], [5, 0], [-4, 0]])
    first = attack.corrupt(honest[0], mimic_view(honest, (2, 5, 6, 7, 8), 0, memory), rng())
    assert first.tolist() == [5.0, 0.0]
    # later another one stands out, and its rows are elsewhere
    later = torch.tensor([[9.0, 9], [1, 1], [0, 100], [0, 0]])
    second = attack.corrupt(later[0], mimic_view(later, (2, 7, 6, 5), 1, memory), rng())
    assert second.tolist() == [1.0, 1.0]
    # and where it is not heard, the truth
    third = attack.corrupt(later[0], mimic_view(later, (2, 4, 6, 5), 2, memory), rng())
    assert third.tolist() == [9.0, 9.0]


def test_mimic_takes_one_step_a_round_however_many_receivers() -> None:
    attack, memory = Mimic(warmup=2), dict[str, object]()
    honest = rows(6)
    for _ in range(3):
        attack.corrupt(honest[0], mimic_view(honest, tuple(range(6)), 0, memory), rng())
    assert memory["rounds"] == 1
    for round_ in (1, 2, 3):
        attack.corrupt(honest[0], mimic_view(honest, tuple(range(6)), round_, memory), rng())
    assert memory["rounds"] == 2


def test_mimic_of_a_given_node() -> None:
    honest = rows(6)
    assert torch.equal(send(Mimic(who=4), honest), honest[4])
    assert torch.equal(send(Mimic(who=17), honest), honest[0])


# -- the rest --------------------------------------------------------------------------------------


def test_equivocation_mirrors_the_lie_or_tells_the_truth() -> None:
    honest = rows(3)

    def told(attack: Attack, receiver: int) -> torch.Tensor:
        return attack.corrupt(honest[0], replace(view(honest), receiver=receiver), rng())

    mirror = Equivocation(SignFlip(2.0))
    assert torch.equal(told(mirror, 4), -2 * honest[0])
    assert torch.allclose(told(mirror, 5), 4 * honest[0])
    assert torch.equal(told(Equivocation(SignFlip(2.0), odd="truth"), 5), honest[0])


def test_scale_zero_and_gaussian() -> None:
    honest = rows(3, dim=4000)
    assert torch.equal(send(Scale(3.0), honest), 3 * honest[0])
    assert send(Zero(), honest).count_nonzero() == 0
    draw = rng()
    sent = [Gaussian(1.0, 2.0).corrupt(honest[0], view(honest), draw) for _ in range(2)]
    assert not torch.equal(*sent)
    assert float(sent[0].mean()) == pytest.approx(1.0, abs=0.15)
    assert float(sent[0].std()) == pytest.approx(2.0, abs=0.15)


@pytest.mark.parametrize(("attackers", "back"), [(2, False), (3, True)])
def test_shift_back_needs_a_majority(attackers: int, back: bool) -> None:
    honest = rows(1, dim=3)
    x, start = torch.tensor([4.0, 5, 6]), torch.tensor([1.0, 1, 1])
    seen = replace(view(honest, nodes=4, attackers=attackers), model=x, start=start)
    sent = ShiftBack().corrupt(honest[0], seen, rng())
    assert sent.tolist() == ([-3.0, -4, -5] if back else honest[0].tolist())


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
    others = {"alie", "ipm", "min_max", "min_sum", "mimic"}
    for name in attacks:
        attack = Attack.parse(name)
        assert attack.knowledge == ("neighbors" if name in others else "own")
    told = Attack.parse(
        {"kind": "equivocation", "attack": {"kind": "ipm", "knowledge": "omniscient"}}
    )
    assert told.knowledge == "omniscient"
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
        {"kind": "mimic", "warmup": 0},
        {"kind": "label_flip", "source": 3},
        {"kind": "label_flip", "source": 3, "target": 3},
        {"kind": "scale", "factor": 0.0},
        {"kind": "gaussian", "std": 0.0},
        {"kind": "min_max", "direction": "up"},
        {"kind": "alie", "knowledge": "own"},
    ],
)
def test_impossible_parameters_are_refused(config: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        Attack.parse(config)
