"""One lost message and one dead node among peers: what heals by itself, and what stays for good.

Those with a server, and those that average over all nodes in one step, are in
test_lost_and_dead.py. Together they are all protocols there are.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from sim.test_lost_and_dead import CASES, NODES, WAIT_S
from support.plans import IDEAL, plans
from support.recording import Matrix, models, refused
from support.runs import EXAMPLES

from tidings.api import protocols
from tidings.links.shape import Dice, LinkShape
from tidings.runtime.plan import ComputePlan
from tidings.runtime.simulation import Simulated, simulate

pytestmark = pytest.mark.sim

#: has minimisers, which two of them need
PROBLEM: dict[str, Any] = {"kind": "quadratic", "dim": 10}
STEPPED = ComputePlan(time_s=0.01)

#: whose next rounds come to the same point from wherever they are
HEALING: dict[str, dict[str, Any]] = {
    "d_psgd": {"lr": 0.03},
    "sgp": {"lr": 0.03},
    "dfedavgm": {"lr": 0.01, "local_steps": 3},
    "dfedsam": {"lr": 0.02, "local_steps": 3, "gossips": 3},
    "network_lasso": {"penalty": 0.3},
    # by its penalty: models that are never sent come together again
    "co2": {"lr": 0.01, "local_steps": 3},
}
#: with something that two ends have alike, or that sums to the same over all nodes
SCARRED: dict[str, dict[str, Any]] = {
    "choco_sgd": {"lr": 0.03, "compressor": {"kind": "top_k", "ratio": 0.3}},
    "gradient_tracking": {"lr": 0.02},
    "msda": {},
}
IN_STEP = HEALING | SCARRED
#: by atomic exchanges
PAIRWISE: dict[str, dict[str, Any]] = {
    "ad_psgd": {"lr": 0.03},
    "a2cid2": {"lr": 0.03, "unit": "10ms"},
    "dadao": {"unit": "10ms"},
}
#: tested with what is particular to them
ELSEWHERE = {"fed_async", "fed_buff", "fed_fix"}


def run(kind: str, link: Any = IDEAL, rounds: int = 150, **options: Any) -> Simulated:
    protocol = {"kind": kind, **(IN_STEP | PAIRWISE)[kind]}
    crash = options.pop("crash_before_send", None)
    made = plans(
        NODES,
        "complete",
        protocol,
        PROBLEM,
        rounds,
        link=link,
        wait_s=WAIT_S,
        compute=STEPPED,
        **options,
    )
    return simulate(made, crash_before_send=crash)


@cache
def early_loss() -> tuple[LinkShape, int]:
    """A link from 2 to 0 that loses one message of many, and the seed: it is one of the first."""
    shape = LinkShape(loss=2e-4)
    for seed in range(100_000):
        dice = Dice(seed, 2, 0)
        if any(dice.draw(shape, k).lost for k in range(4, 12)):
            lost = [k for k in range(4000) if dice.draw(shape, k).lost]
            if len(lost) == 1:
                return shape, seed
    raise AssertionError


def off(kind: str, rounds: int = 150) -> tuple[Matrix, Simulated, Simulated]:
    """By how much one lost message has moved the models; the run with it, and without."""
    shape, seed = early_loss()
    lossy, clean = (
        run(
            kind,
            lambda i, j, loss=loss: shape if loss and (i, j) == (2, 0) else IDEAL,
            rounds,
            seed=seed,
        )
        for loss in (True, False)
    )
    assert sum(link.lost_messages for final in lossy.finals for link in final.links) == 1
    return models(lossy) - models(clean), lossy, clean


def test_every_protocol_is_in_a_list() -> None:
    assert set(protocols) == set(CASES) | set(IN_STEP) | set(PAIRWISE) | ELSEWHERE


def test_the_docs_say_of_every_protocol_what_it_does_when_it_is_back() -> None:
    table = (
        (EXAMPLES.parent / "docs" / "restart.md")
        .read_text(encoding="utf-8")
        .split("What each protocol")[1]
    )
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("|")]
    assert set(protocols) <= {name.strip() for row in rows for name in row.split(",")}


@pytest.mark.parametrize("kind", IN_STEP)
def test_one_lost_message_holds_everyone_up_once(kind: str) -> None:
    """Who waits for it misses it; who waits for that one may miss its message of the next step."""
    moved, lossy, clean = off(kind)
    counts = refused(lossy)
    assert 1 <= counts["missing"] <= NODES
    assert counts["missing"] - counts["late"] <= 1
    assert [node.ledger.completed for node in lossy.nodes] == [150] * NODES
    assert lossy.time_s < clean.time_s + 2 * WAIT_S + 0.1
    assert np.abs(moved).max() < 1.0


@pytest.mark.parametrize("kind", HEALING)
def test_one_lost_message_is_forgotten(kind: str) -> None:
    assert np.abs(off(kind, 300)[0]).max() < 1e-5


@pytest.mark.parametrize("kind", SCARRED)
def test_one_lost_message_stays(kind: str) -> None:
    """In the replica of a copy, or in the sum of trackers or of duals."""
    assert np.abs(off(kind, 300)[0]).max() > 1e-4


@pytest.mark.parametrize("kind", IN_STEP | PAIRWISE)
def test_the_others_go_on_without_a_dead_node(kind: str) -> None:
    """With ``for: live`` its death costs no more than the time to suspect it."""
    # long enough for what is asked of the dead one to be given up
    rounds = 150 if kind in IN_STEP else 300
    clean = run(kind, rounds=rounds)
    result = run(kind, rounds=rounds, wait_for="live", crash_before_send={2: 60})
    alive = [node for node in result.nodes if node.id != 2]
    assert [node.ledger.completed for node in alive] == [rounds] * (NODES - 1)
    assert result.nodes[2].ledger.completed < rounds
    assert result.time_s < clean.time_s + 3 * WAIT_S
    got = np.stack([node.model.double().numpy() for node in alive])
    assert np.isfinite(got).all()
    assert np.abs(got - models(clean)[[0, 1, 3, 4]]).max() < 5
    assert spread(got) <= spread(models(clean)) + 0.5


def spread(x: Matrix) -> float:
    return float(np.abs(x - x.mean(axis=0)).max())


@pytest.mark.parametrize("kind", PAIRWISE)
def test_a_lost_message_of_an_exchange_leaves_no_doubt(kind: str) -> None:
    """The exchange is asked for again, or none of the two ends takes part in it."""
    moved, lossy, _ = off(kind)
    assert [node.ledger.completed for node in lossy.nodes] == [150] * NODES
    assert "exchange_in_doubt" not in {
        name for final in lossy.finals for name, count in final.counters.items() if count
    }
    # other exchanges at other times, after it
    assert np.abs(moved.mean(axis=0)).max() < 1.0
