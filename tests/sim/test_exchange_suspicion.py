"""Exchanges whose partner is suspected dead, rightly or wrongly: given up early, and by both."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from support.plans import IDEAL, plans
from support.recording import Recorder, counters, models
from support.scripts import TINY, Commit, Script, check_atomic, play, script, take_part

from tidings.api import Node, Outcome, Protocol
from tidings.links.shape import LinkShape
from tidings.runtime.node import RuntimeNode
from tidings.runtime.plan import ArmedFault, HeartbeatPlan
from tidings.runtime.simulation import Simulated, simulate

pytestmark = pytest.mark.sim

BEAT = HeartbeatPlan(every_s=0.1, suspect_after_s=0.5)
WAIT_S = 30.0


def cut(*pairs: tuple[int, int], start_s: float, for_s: float = math.inf) -> dict[int, Any]:
    """Plan fields that cut links both ways, silently, for a while."""
    armed: dict[int, list[ArmedFault]] = {}
    for number, (a, b) in enumerate(pairs):
        for node, peer in ((a, b), (b, a)):
            fault = ArmedFault(
                event=f"cut{number}",
                fault={"kind": "link.cut"},
                targets=(peer,),
                at_s=start_s,
                for_s=None if math.isinf(for_s) else for_s,
            )
            armed.setdefault(node, []).append(fault)
    return {node: {"faults": tuple(faults)} for node, faults in armed.items()}


@script
async def one_asks_across_a_cut(self: Script, node: Node) -> None:
    if node.id == 0:
        await node.sleep(1.0)
        self.note(node, await node.exchange(1))
    await node.sleep(2 * WAIT_S)


def across_a_cut(heartbeat: HeartbeatPlan | None) -> tuple[Script, Simulated]:
    """Node 0 asks at the moment at which the link to node 1 is cut for good."""
    protocol = Script("one_asks_across_a_cut")
    faults = cut((0, 1), start_s=1.0)
    made = plans(
        2,
        "line",
        protocol,
        TINY,
        1,
        wait_s=WAIT_S,
        per_node=faults,
        heartbeat=heartbeat,
        link=IDEAL,
    )
    return protocol, simulate(made)


def test_the_survivor_goes_on_after_the_suspicion_and_not_after_the_time_out() -> None:
    protocol, result = across_a_cut(BEAT)
    ((node, at_s, outcome),) = protocol.notes
    assert (node, outcome) == (0, Outcome.REFUSED)
    # what was heard last before the cut may be a beat old by then
    assert 1.0 + 0.5 - 0.1 <= at_s <= 1.0 + 0.5 + 0.01
    assert protocol.commits == []
    assert counters(result, "exchange_in_doubt") == [0, 0]


def test_without_a_suspicion_it_is_the_time_out_that_ends_it() -> None:
    protocol, _ = across_a_cut(None)
    assert protocol.notes == [(0, 1.0 + WAIT_S, Outcome.REFUSED)]


@script
async def answers_slowly(self: Script, node: Node) -> None:
    if node.id == 0:
        assert isinstance(node, RuntimeNode)
        async with node.tasks() as tasks:
            exchange = tasks.start(node.exchange(1))
            await node.sleep(0.5)
            node._suspect(1, True)
            self.note(node, await exchange)
    elif node.id == 2:
        await node.sleep(2.5)
        self.note(node, await node.exchange(1, within_s=0.5))
    await node.sleep(5)


def test_a_peer_that_was_suspected_wrongly_is_told_and_is_free_for_others() -> None:
    """Its offer is on its way when it is given up; it hears ABORT, and nobody has committed."""

    def link(source: int, target: int) -> LinkShape:
        return LinkShape(delay_ns=1_000_000_000) if (source, target) == (1, 0) else IDEAL

    protocol, result = play(answers_slowly, nodes=3, link=link)
    assert protocol.notes == [(0, 0.5, Outcome.REFUSED), (2, 2.5, Outcome.DELIVERED)]
    assert {node for node, *_ in protocol.commits} == {1, 2}
    check_atomic(protocol.commits)
    assert counters(result, "exchange_in_doubt") == [0, 0, 0]


@script
async def asks_and_goes(self: Script, node: Node) -> None:
    if node.id == 0:
        self.note(node, await node.exchange(1))
    elif node.id == 2:
        await node.sleep(2.0)
        self.note(node, await node.exchange(1, within_s=0.5))
    await node.sleep(60)


def test_a_node_that_leaves_does_not_leave_the_one_in_doubt_that_it_has_asked() -> None:
    """Node 0 goes at 0.5 s, when node 1 has long made its offer, and stays away for a minute."""

    def link(source: int, target: int) -> LinkShape:
        return LinkShape(delay_ns=1_000_000_000) if (source, target) == (1, 0) else IDEAL

    away = ArmedFault(event="away", fault={"kind": "node.leave"}, at_s=0.5, for_s=50.0)
    protocol = Script("asks_and_goes")
    faults = {0: {"faults": (away,)}}
    made = plans(3, "complete", protocol, TINY, 1, link=link, wait_s=WAIT_S, per_node=faults)
    result = simulate(made)
    assert protocol.notes[:2] == [(0, 0.5, Outcome.REFUSED), (2, 2.0, Outcome.DELIVERED)]
    check_atomic(protocol.commits)
    assert counters(result, "exchange_in_doubt") == [0, 0, 0]


@script
async def both_suspect_each_other(self: Script, node: Node) -> None:
    assert isinstance(node, RuntimeNode)
    node._suspect(1 - node.id, True)
    if node.id == 0:
        self.note(node, await node.exchange(1))
        self.note(node, node.live_neighbors)
    await node.sleep(5)


def test_two_that_suspect_each_other_find_each_other_again_by_an_exchange() -> None:
    protocol, _ = play(both_suspect_each_other, link=LinkShape(delay_ns=50_000_000))
    assert protocol.notes == [(0, 0.1, Outcome.DELIVERED), (0, 0.1, (1,))]
    check_atomic(protocol.commits)


# -- any weather -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trade(Protocol):
    """Every node exchanges with random neighbours until the run is over."""

    commits: list[Commit] = field(default_factory=list, init=False)
    started: Counter[int] = field(default_factory=Counter, init=False)

    async def run(self, node: Node) -> None:
        x = take_part(node, self.commits)
        x.fill_(float(node.rng("start").integers(1000, 2000)))
        self.started[node.id] = int(x[0])
        for _ in node.rounds():
            await node.sleep(0.3 * node.rng("pace").exponential())
            await node.exchange(int(node.rng("peer").choice(node.neighbors)))
            await node.report()


def stormy(seed: int, longest_cut_s: float) -> tuple[Trade, Simulated, Recorder]:
    """Cuts and losses drawn from the seed, among nodes that suspect after 0.5 s of silence."""
    rng = np.random.default_rng(seed)
    link = LinkShape(
        rate_bit_per_s=float(rng.choice([math.inf, 1e6])),
        delay_ns=int(rng.choice([0, 1_000_000, 50_000_000])),
        loss=float(rng.choice([0.0, 0.1])),
    )
    nodes = int(rng.integers(2, 5))
    pairs = [(a, b) for a in range(nodes) for b in range(a)]
    faults: dict[int, dict[str, Any]] = {}
    for event, start_s in enumerate(rng.uniform(0.0, 8.0, 6)):
        pair = pairs[int(rng.integers(len(pairs)))]
        made = cut(pair, start_s=start_s, for_s=float(rng.uniform(0.1, longest_cut_s)))
        for node, fields in made.items():
            named = tuple(f.model_copy(update={"event": f"cut{event}"}) for f in fields["faults"])
            faults[node] = {"faults": faults.get(node, {"faults": ()})["faults"] + named}
    protocol, recorder = Trade(), Recorder()
    made_plans = plans(
        nodes, "complete", protocol, TINY, None, link=link, seed=seed, wait_s=WAIT_S,
        per_node=faults, heartbeat=BEAT,
    )  # fmt: skip
    return protocol, simulate(made_plans, recorder, stop_s=20.0, tie_seed=seed), recorder


@pytest.mark.parametrize("decade", range(5))
def test_wrong_suspicions_never_let_one_side_commit_alone(decade: int) -> None:
    """Cuts are over before anybody who is in doubt gives up: then there is no doubt at all."""
    suspicions = 0
    for seed in range(10 * decade, 10 * decade + 10):
        protocol, result, recorder = stormy(seed, longest_cut_s=2.0)
        where = f"seed {seed}"
        assert set(counters(result, "exchange_in_doubt")) == {0}, where
        assert Counter(protocol.commits) == Counter((j, i, b, a) for i, j, a, b in protocol.commits)
        assert models(result)[:, 0].sum() == sum(protocol.started.values()), where
        assert min(counters(result, "exchange_committed")) > 5, where
        suspicions += len(recorder.named("suspected"))
    assert suspicions > 20


@pytest.mark.parametrize("decade", range(2))
def test_sides_that_disagree_after_a_long_cut_were_counted_in_doubt(decade: int) -> None:
    for seed in range(10 * decade, 10 * decade + 10):
        protocol, result, _ = stormy(seed, longest_cut_s=15.0)
        ours = Counter(protocol.commits)
        theirs = Counter((j, i, b, a) for i, j, a, b in protocol.commits)
        alone = (ours - theirs).total()
        assert alone <= sum(counters(result, "exchange_in_doubt")), f"seed {seed}"
