"""Byz-VR-MARINA(-PP) against its formulas in float64, and what a round of liars can do to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from support.bowls import Bowls, Matrix
from support.plans import IDEAL, plans, schedule_of
from support.recording import Recorder, models, refused

from tidings.api import Aggregator, Attack, Protocol, View
from tidings.errors import ConfigError
from tidings.links.shape import LinkShape
from tidings.protocols.byzantine.byz_vr_marina import ByzVRMarinaPP, clipped
from tidings.runtime.plan import derive_rng
from tidings.runtime.simulation import Simulated, simulate
from tidings.units import Ratio

pytestmark = pytest.mark.oracle

BOWLS = Bowls()
NODES, SEED = 7, 1


def run(rounds: int, recorder: Recorder | None = None, kind: str = "_pp", **more: Any) -> Simulated:
    options = {name: more.pop(name) for name in ("attackers", "attack") if name in more}
    protocol = {"kind": f"byz_vr_marina{kind}", "lr": 0.02, "p": 0.3, **more}
    made = plans(NODES, "star", protocol, BOWLS, rounds, link=IDEAL, wait_s=1.0, **options)
    return simulate(made, recorder)


def draws(rounds: int, p: float, many: int, few: int) -> list[tuple[bool, list[int]]]:
    """The shared stream, as the docstring says: the coin, then who sends."""
    made = []
    for k in range(rounds):
        luck = derive_rng(SEED, "shared", f"round {k}")
        full = luck.random() < p or k == 0
        chosen = luck.choice(NODES - 1, many if full else few, replace=False)
        made.append((full, sorted(1 + int(i) for i in chosen)))
    return made


def formulas(
    drawn: list[tuple[bool, list[int]]], clip: float, lr: float = 0.02
) -> tuple[Matrix, list[Matrix]]:
    """The last model and all g^k, with the mean as the rule."""
    a, b = BOWLS.matrices(NODES, SEED)
    x = before = np.zeros(BOWLS.dim)
    g, estimates = x, []
    for full, clients in drawn:
        if full:
            g = np.mean([a[i] @ (x - b[i]) for i in clients], axis=0)
        else:
            limit = clip * np.linalg.norm(x - before)
            changes = [a[i] @ (x - before) for i in clients]
            scales = [min(1.0, limit / max(1e-300, np.linalg.norm(c))) for c in changes]
            g = g + np.mean([s * c for s, c in zip(scales, changes, strict=True)], axis=0)
        before, x = x, x - lr * g
        estimates.append(g)
    return x, estimates


@pytest.mark.parametrize("clip", [None, 4.0, 0.5])
@pytest.mark.parametrize(("participation", "few"), [("100%", 6), ("50%", 3), ("34%", 3)])
def test_every_round_as_written(clip: float | None, participation: str, few: int) -> None:
    result = run(40, clip=clip, participation=participation, aggregator="mean")
    want, _ = formulas(draws(40, 0.3, 6, few), np.inf if clip is None else clip)
    np.testing.assert_allclose(models(result)[0], want, rtol=1e-4, atol=1e-5)
    # the last model is given to all
    assert (models(result) == models(result)[0]).all()
    assert refused(result) == {}


def test_full_gradients_of_some_only() -> None:
    result = run(40, clip=2.0, participation="20%", full_participation="50%", aggregator="mean")
    want, _ = formulas(draws(40, 0.3, 3, 2), 2.0)
    np.testing.assert_allclose(models(result)[0], want, rtol=1e-4, atol=1e-5)


def test_with_everyone_and_the_mean_it_is_gradient_descent() -> None:
    result = run(60, kind="", aggregator="mean")
    a, b = BOWLS.matrices(NODES, SEED)
    x = np.zeros(BOWLS.dim)
    for _ in range(60):
        x = x - 0.02 * np.mean([a[i] @ (x - b[i]) for i in range(1, NODES)], axis=0)
    np.testing.assert_allclose(models(result)[0], x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rule", ["median", {"kind": "krum", "f": 1}, {"kind": "caf", "f": 1}])
def test_with_everyone_and_no_clipping_the_two_are_one(rule: Any) -> None:
    plain = run(50, kind="", aggregator=rule)
    sampled = run(50, clip=None, participation="100%", aggregator=rule)
    np.testing.assert_allclose(models(plain), models(sampled), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("compressor", ["qsgd", {"kind": "rand_k", "ratio": "50%"}])
def test_compressed_differences_converge_to_the_same_point(compressor: Any) -> None:
    optimum = BOWLS.optimum(NODES, SEED, weights=[0.0] + [1.0] * 6)
    result = run(600, kind="", aggregator="mean", compressor=compressor)
    np.testing.assert_allclose(models(result)[0], optimum, atol=1e-3)


# -- liars -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shout(Attack):
    """Noise of any size, infinity and NaN among it."""

    def corrupt(self, honest: torch.Tensor, view: View, rng: np.random.Generator) -> torch.Tensor:
        size = rng.choice([1.0, 1e3, 1e20, np.inf, np.nan])
        return torch.from_numpy(size * rng.standard_normal(len(honest))).float()


@dataclass(frozen=True)
class Watching(ByzVRMarinaPP):
    """Notes how far g moves, in multiples of the step."""

    def combine(self, g, differences, moved, node):  # type: ignore[no-untyped-def]
        new = super().combine(g, differences, moved, node)
        node.log("moved", g=float((new - g).norm()), step=moved)
        return new


@pytest.mark.parametrize(
    ("differences", "rule", "stretch"),
    [("mean", "mean", 1.0), ("robust", "mean", 1.0), ("robust", "median", 6**0.5)],
)
def test_no_round_moves_the_estimate_farther_than_lambda(
    differences: Any, rule: Any, stretch: float
) -> None:
    """Whatever is sent, and however many send it (the norm bound F_A of the rule times lambda)."""
    recorder = Recorder()
    protocol = Watching(
        lr=0.02,
        p=0.05,
        clip=0.7,
        differences=differences,
        participation=Ratio(0.5),
        aggregator=Aggregator.parse(rule),
    )
    made = plans(
        NODES, "star", protocol, BOWLS, 60, link=IDEAL, attackers=(1, 2, 4, 6), attack=Shout()
    )
    if rule == "mean":  # full gradients are sent in the first round, and the mean is no defence
        made = [
            plan.model_copy(update={"attack": None}) if plan.node in (4, 6) else plan
            for plan in made
        ]
    simulate(made, recorder)
    seen = recorder.named("moved")
    assert len(seen) > 40
    for event in seen:
        if np.isfinite(event["step"]):
            assert event["g"] <= 0.7 * event["step"] * stretch * (1 + 1e-4) + 1e-30


def test_clipping_by_hand() -> None:
    rows = torch.tensor(
        [[3.0, 4.0], [0.3, 0.4], [0.0, 0.0], [np.nan, 1.0], [np.inf, 0.0], [3e38, 3e38]]
    )
    out = clipped(rows, 1.0)
    assert out[:5].tolist() == [
        pytest.approx([0.6, 0.8]),
        pytest.approx([0.3, 0.4]),
        [0, 0],
        [0, 0],
        [0, 0],
    ]
    assert float(out[5].norm()) == pytest.approx(1.0)
    assert clipped(rows[:3], 0.0).tolist() == [[0, 0]] * 3


SAME: dict[str, Any] = {
    "kind": "quadratic",
    "dim": 10,
    "mu": 0.2,
    "smoothness": 1.0,
    "heterogeneity": 0.0,
}


@pytest.mark.parametrize(("clip", "survives"), [(1.0, True), (None, False)])
def test_a_majority_of_liars_in_a_round(clip: float | None, survives: bool) -> None:
    """Shift-back in rounds in which attackers outnumber the honest that were drawn."""
    recorder = Recorder()
    rule = {"kind": "bucketing", "f": 4, "then": "median"}
    protocol = {
        "kind": "byz_vr_marina_pp",
        "lr": 0.3,
        "p": 0.1,
        "clip": clip,
        "aggregator": rule,
    }
    attackers = (16, 17, 18, 19, 20)
    options: dict[str, Any] = {"attackers": attackers, "attack": "shift_back", "link": IDEAL}
    result = simulate(plans(21, "star", protocol, SAME, 300, **options), recorder)
    majorities = 0
    for k in range(300):
        luck = derive_rng(SEED, "shared", f"round {k}")
        full = luck.random() < 0.1 or k == 0
        chosen = 1 + luck.choice(20, 20 if full else 4, replace=False)
        majorities += 2 * sum(int(i) in attackers for i in chosen) > len(chosen)
    assert majorities > 5
    distances = recorder.series("distance")
    assert (distances[-1] < 1e-8) is survives, (distances[-1], majorities)
    assert result.time_s < 20


# -- lost messages, crashes, refusals --------------------------------------------------------------


def test_a_client_that_dies_is_left_out() -> None:
    protocol = {"kind": "byz_vr_marina", "lr": 0.02, "p": 0.3, "aggregator": "mean"}
    made = plans(NODES, "star", protocol, BOWLS, 300, link=IDEAL, wait_s=1.0)
    result = simulate(made, crash_before_send={2: 5})
    optimum = BOWLS.optimum(NODES, SEED, weights=[0.0, 1, 0, 1, 1, 1, 1])
    np.testing.assert_allclose(result.nodes[0].model.numpy(), optimum, atol=1e-4)


def test_lost_messages_cost_a_round_but_leave_no_wrong_difference() -> None:
    lossy = LinkShape(loss=0.1)
    protocol = {"kind": "byz_vr_marina", "lr": 0.02, "p": 0.3, "aggregator": "mean"}
    same = Bowls(apart=0.0)
    made = plans(NODES, "star", protocol, same, 200, link=lossy, wait_s=0.1)
    result = simulate(made)
    # all have the same minimiser, so that leaving some out moves no fixed point
    _, b = same.matrices(NODES, SEED)
    np.testing.assert_allclose(result.nodes[0].model.numpy(), b[0], atol=2e-2)


def test_what_it_cannot_run_on() -> None:
    def parsed(**more: Any) -> Protocol:
        return Protocol.parse({"kind": "byz_vr_marina_pp", "lr": 0.1, **more})

    star, ring = schedule_of(6, "star"), schedule_of(6, "ring")
    with pytest.raises(ValueError, match="node 0 reaches all"):
        parsed().check(ring.union.in_degrees, ring.facts())
    with pytest.raises(ValueError, match="krum with f=2 needs at least 7 rows, there are 5"):
        parsed(aggregator={"kind": "krum", "f": 2}).check(star.union.in_degrees, star.facts())
    local = BOWLS.local(0, 6, 1)
    with pytest.raises(ValueError, match="unbiased compressor, top_k is biased"):
        parsed(compressor="top_k").check_problem(local)
    parsed(compressor="qsgd").check_problem(local)
    for wrong in ({"p": 0.0}, {"clip": 0.0}, {"participation": "60%", "full_participation": "50%"}):
        with pytest.raises(ConfigError):
            parsed(**wrong)
