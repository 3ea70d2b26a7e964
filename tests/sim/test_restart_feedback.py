"""Error feedback and 1-bit Adam after a return: what two ends share is alike again."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from support.bowls import Bowl, Bowls
from support.plans import IDEAL, plans
from support.recording import Recorder, models

from tidings.api import LocalProblem, Node, Protocol, Smoothness
from tidings.links.shape import LinkShape
from tidings.protocols.compressed.feedback import ErrorFeedback
from tidings.runtime.plan import ArmedFault, CheckpointPlan, ComputePlan, HeartbeatPlan
from tidings.runtime.simulation import Restart, Simulated, simulate

pytestmark = [pytest.mark.sim, pytest.mark.timeout(120)]

NODES, SERVER, VICTIM = 5, 0, 2
EVERY = CheckpointPlan(every_rounds=5)


class Rough(Bowl):
    """Says of itself that some nodes are rougher, so that EF21-W weights them unequally."""

    @property
    def smoothness(self) -> Smoothness:
        return Smoothness(local=(10.0, 8.0, 6.0, 4.0, 2.0), average=6.0)


@dataclass(frozen=True)
class Uneven(Bowls):
    """Bowls whose optima are far apart: a wrong sum of estimates moves the limit a long way."""

    dim: int = 10
    apart: float = 3.0

    def local(self, node: int, nodes: int, seed: int) -> LocalProblem:
        return Rough(self, node, nodes, seed)


BOWLS = Uneven()
OPTIMUM = BOWLS.optimum(NODES)

#: those that learn the gradients: the limit of each is the exact optimum
EXACT: dict[str, dict[str, Any]] = {
    "d_ec": {"lr": 0.03},
    "econtrol": {"lr": 0.03, "eta": 0.3},
    "ef21": {"lr": 0.03},
    "ef21_w": {"lr": 0.03},
}
ON_A_STAR = EXACT | {"ec": {"lr": 0.01}}
ROUNDS = 200
#: in round 13; (node: sends before its death), a worker makes one a round, the server four
DEATHS = {
    "worker": {VICTIM: 13},
    "server": {SERVER: 52},
    "server in a broadcast": {SERVER: 54},
    "both": {VICTIM: 13, SERVER: 52},
}
CASES = [
    ("worker", False),
    ("worker", True),
    ("server", False),
    ("server", True),
    ("server in a broadcast", False),
    ("both", True),
]


class Books:
    """What there was at the start of every round."""

    def __init__(self) -> None:
        #: h_i by (round, worker)
        self.shifts: dict[tuple[int, int], torch.Tensor] = {}
        #: the server's, by round
        self.totals: dict[int, torch.Tensor] = {}
        self.models: dict[int, torch.Tensor] = {}
        self.weights: tuple[float, ...] = ()

    def gap(self, round_: int) -> float:
        """How far the server's total is from the weighted sum of the workers' h_i."""
        shifts = [self.shifts[round_, worker] for worker in range(NODES)]
        total = sum(w * h for w, h in zip(self.weights, shifts, strict=True))
        return float((self.totals[round_] - total).abs().max())


def watched(kind: str, books: Books, agrees: bool) -> Protocol:
    """The protocol, writing into ``books``; if not ``agrees``, only models are agreed on."""
    parameters = {"compressor": {"kind": "top_k", "ratio": 0.3}} | ON_A_STAR[kind]
    base: Any = Protocol.registry.get(kind)

    class Watched(base):  # type: ignore[misc]
        def compress(self, memory: Any, gradient: torch.Tensor, node: Node) -> Any:
            books.shifts[node.round, node.id] = self.shift(memory, node).clone()
            return super().compress(memory, gradient, node)

        def step(self, total: torch.Tensor, sent: Any, node: Node) -> Any:
            books.totals[node.round], books.weights = total.clone(), self.weights(node)
            books.models[node.round] = node.model.clone()
            return super().step(total, sent, node)

        def resync(self, state: Any, peer: int, message: Any, node: Node) -> Any:
            before = state.memory, state.total, dict(state.replicas)
            state = super().resync(state, peer, message, node)
            if not agrees:
                state.memory, state.total, state.replicas = before
            return state

    made = Protocol.parse({"kind": kind} | parameters)
    assert isinstance(made, ErrorFeedback)
    return Watched(**parameters | {"compressor": made.compressor})  # type: ignore[attr-defined]


def run(
    kind: str,
    rounds: int | None,
    deaths: dict[int, int] | None = None,
    lose_state: bool = False,
    agrees: bool = True,
    topology: str = "star",
    stop_s: float | None = None,
    **options: Any,
) -> tuple[Simulated, Recorder, Books]:
    """A run with deaths; all of the dead come back."""
    books, recorder = Books(), Recorder()
    protocol = watched(kind, books, agrees)
    fields = {"link": IDEAL, "wait_s": 0.2, "checkpoint": EVERY} | options
    result = simulate(
        plans(NODES, topology, protocol, BOWLS, rounds, **fields),
        recorder,
        stop_s=stop_s,
        crash_before_send=deaths,
        restarts={node: Restart(0.5, lose_state) for node in deaths or {}},
    )
    return result, recorder, books


@pytest.mark.parametrize(("who", "lose_state"), CASES)
@pytest.mark.parametrize("kind", EXACT)
def test_the_sum_is_right_again_and_the_limit_exact(kind: str, who: str, lose_state: bool) -> None:
    deaths = DEATHS[who]
    result, recorder, books = run(kind, ROUNDS, deaths, lose_state)
    back = recorder.named("rejoined")
    assert sorted(event["node"] for event in back) == sorted(deaths)
    assert {event["restored"] for event in back} == {None if lose_state else 10}
    # where both are dead the worker is back first, and does not hear the server
    assert back[-1]["unheard"] == []
    assert [node.ledger.completed for node in result.nodes] == [ROUNDS] * NODES
    first = back[-1]["round"]
    assert 13 < first < 20
    assert max(books.gap(round_) for round_ in range(first, ROUNDS)) < 1e-12
    assert books.shifts[first, 1].abs().max() > 1
    np.testing.assert_allclose(models(result), [OPTIMUM] * NODES, atol=1e-4)


@pytest.mark.parametrize("who", ["worker", "server"])
@pytest.mark.parametrize("kind", EXACT)
def test_without_it_the_limit_would_be_wrong(kind: str, who: str) -> None:
    result, recorder, books = run(kind, ROUNDS, DEATHS[who], lose_state=True, agrees=False)
    assert recorder.named("rejoined")
    assert books.gap(ROUNDS - 1) > 0.1
    assert np.abs(models(result)[0] - OPTIMUM).max() > 0.1


@cache
def distance_of_ec(who: str | None, lose_state: bool) -> float:
    """It goes around the optimum: the mean distance, long after the return."""
    deaths = DEATHS[who] if who else {}
    _, recorder, books = run("ec", 500, deaths, lose_state)
    assert len(recorder.named("rejoined")) == len(deaths)
    late = [books.models[round_].numpy() for round_ in range(150, 500)]
    return float(np.mean([np.linalg.norm(x - OPTIMUM) for x in late]))


@pytest.mark.parametrize(("who", "lose_state"), [("worker", True), ("server", True)])
def test_ec_comes_as_near_as_ever(who: str, lose_state: bool) -> None:
    got, usual = distance_of_ec(who, lose_state), distance_of_ec(None, False)
    assert got == pytest.approx(usual, rel=0.1)


@pytest.mark.parametrize("who", ["worker", "server"])
def test_a_return_costs_no_progress(who: str) -> None:
    """The model goes on from that of the round before, whoever has died and whatever is lost."""
    _, recorder, books = run("ef21", 40, DEATHS[who], lose_state=True)
    (back,) = recorder.named("rejoined")
    # the model at the end of the last round before, and of that of the return
    last = max(round_ for round_ in books.models if round_ < back["round"])
    points = books.models[last], books.models[back["round"] + 1]
    before, after = (float(np.linalg.norm(x.numpy() - OPTIMUM)) for x in points)
    assert after < before < 0.5 * np.linalg.norm(OPTIMUM)


def test_workers_that_hear_each_other_have_nothing_to_agree_on() -> None:
    result, recorder, books = run("ef21", ROUNDS, DEATHS["worker"], True, topology="complete")
    (back,) = recorder.named("rejoined")
    assert back["agrees_with"] == [0, 1, 3, 4]
    assert max(books.gap(round_) for round_ in range(back["round"], ROUNDS)) < 1e-12
    np.testing.assert_allclose(models(result), [OPTIMUM] * NODES, atol=1e-4)


def cut_off(node: int) -> tuple[ArmedFault, ...]:
    """What server and victim do to the link between them."""
    if node not in (SERVER, VICTIM):
        return ()
    to, cut = VICTIM + SERVER - node, {"kind": "link.cut"}
    return (ArmedFault(event=f"to {to}", fault=cut, targets=(to,), at_s=0.3, for_s=0.5),)


@pytest.mark.parametrize("agrees", [True, False])
@pytest.mark.parametrize("kind", EXACT)
def test_a_worker_that_was_cut_off_agrees_again(kind: str, agrees: bool) -> None:
    """Its messages were lost, which it had counted and the server had not."""
    _, recorder, books = run(
        kind,
        None,
        agrees=agrees,
        stop_s=1.5,
        link=LinkShape(rate_bit_per_s=20e6, delay_ns=2_000_000),
        compute=ComputePlan(time_s=0.01),
        wait_for="live",
        wait_s=5.0,
        heartbeat=HeartbeatPlan(every_s=0.02, suspect_after_s=0.1),
        per_node={node: {"faults": cut_off(node)} for node in range(NODES)},
    )
    (back,) = recorder.named("rejoined")
    assert back["node"] == VICTIM
    assert back["round"] - back["was"] > 10
    assert 0.8 <= back["time_s"] <= 0.9
    last = min(max(books.totals), max(round_ for round_, _ in books.shifts)) - 1
    assert last > back["round"] + 20
    gaps = [books.gap(round_) for round_ in range(back["round"], last)]
    assert max(gaps) < 1e-12 if agrees else min(gaps) > 1e-6


# -- 1-bit Adam ------------------------------------------------------------------------------------


@pytest.mark.parametrize("lose_state", [False, True])
@pytest.mark.parametrize("sends", [82, 86, 240, 242, 245])
def test_one_bit_adam_takes_what_all_others_have(sends: int, lose_state: bool) -> None:
    """In the warm-up and after it, within broadcasts and between two rounds.

    It makes eight sends a round, the first four of them shares. One that dies in a broadcast of its
    average sets the others apart, until it is back.
    """
    protocol = {"kind": "one_bit_adam", "lr": 0.02, "warm_up": 20}
    fields = {"link": IDEAL, "wait_s": 0.2, "checkpoint": EVERY}
    recorder = Recorder()
    result = simulate(
        plans(NODES, "complete", protocol, BOWLS, ROUNDS, **fields),
        recorder,
        crash_before_send={VICTIM: sends},
        restarts={VICTIM: Restart(0.7, lose_state)},
    )
    (back,) = recorder.named("rejoined")
    assert back["unheard"] == []
    assert back["round"] > sends // 8
    assert [node.ledger.completed for node in result.nodes] == [ROUNDS] * NODES
    got = models(result)
    # bit by bit
    assert (got == got[0]).all()
    assert np.linalg.norm(got[0] - OPTIMUM) < 0.25 * np.linalg.norm(OPTIMUM)
