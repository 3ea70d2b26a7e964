"""DADAO on graphs that change: its speed, which edges gossip when, and what it takes for worst."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from support.bowls import Bowls, Matrix
from support.plans import IDEAL, LINK, plans, schedule_of
from support.recording import models
from support.watched import TracedDADAO

from tidings.links.shape import LinkShape
from tidings.protocols.asynchronous import dadao
from tidings.protocols.asynchronous.dadao import DADAO
from tidings.protocols.asynchronous.dadao_state import State
from tidings.runtime.simulation import Simulated, simulate
from tidings.units import Duration
from tidings_coordinator.experiment.load import loads
from tidings_coordinator.planning import plan

pytestmark = pytest.mark.oracle

BOWLS = Bowls(dim=5)
NODES, EVERY = 8, 3
#: the ring, and one through every third node: they have no edge in common
AROUND = {(i, (i + 1) % NODES) for i in range(NODES)}
ACROSS = {(i, (i + 3) % NODES) for i in range(NODES)}


def custom(edges: set[tuple[int, int]], **more: Any) -> dict[str, Any]:
    return {"kind": "custom", "edges": [f"{i}<->{j}" for i, j in sorted(edges)]} | more


def in_turn(*parts: Any) -> dict[str, Any]:
    return {"kind": "sequence", "of": list(parts), "every": EVERY}


RINGS = in_turn("ring", custom(ACROSS))
STAR_AND_LINE = in_turn("star", "line")


def run(
    topology: dict[str, Any], stop_s: float, link: LinkShape = IDEAL, **options: Any
) -> tuple[TracedDADAO, Simulated]:
    protocol = TracedDADAO(unit=Duration(1.0), **options)
    return protocol, simulate(
        plans(NODES, topology, protocol, BOWLS, None, link=link), stop_s=stop_s
    )


def laplacian(edges: set[tuple[int, int]]) -> Matrix:
    total = np.zeros((NODES, NODES))
    for i, j in edges:
        e = np.eye(NODES)[i] - np.eye(NODES)[j]
        total += np.outer(e, e)
    return total


def chi(edges: set[tuple[int, int]], of: int) -> tuple[float, float]:
    """chi_1 and chi_2 with the rate 1/of on every edge."""
    inverse = np.linalg.pinv(laplacian(edges) / of)
    resistances = [inverse[i, i] + inverse[j, j] - 2 * inverse[i, j] for i, j in edges]
    return 1 / np.linalg.eigvalsh(laplacian(edges) / of)[1], max(resistances) / 2


def error(result: Simulated) -> float:
    return float(((models(result) - BOWLS.optimum(NODES)) ** 2).sum(axis=1).mean())


@pytest.mark.parametrize("topology", [RINGS, STAR_AND_LINE], ids=["rings", "star and line"])
def test_it_converges_linearly_to_the_optimum_of_all_at_the_speed_of_its_theory(
    topology: dict[str, Any],
) -> None:
    """|x - x*|^2 falls like exp(-c t sqrt(mu / L)), with c = 1 / (8 sqrt 2), all the way."""
    errors = [error(run(topology, float(stop_s))[1]) for stop_s in (20, 110, 200)]
    least = math.sqrt(BOWLS.mu / (2 * BOWLS.smoothness)) / 8
    for early, late in itertools.pairwise(errors):
        assert math.log(early / late) / 90 >= least
    assert errors[0] > 0.01
    assert errors[2] < 1e-4


@pytest.mark.parametrize("link", [IDEAL, LINK], ids=["ideal", "delayed"])
def test_only_edges_of_the_graph_in_place_gossip_at_their_rate(link: LinkShape) -> None:
    span = 60
    protocol, _ = run(RINGS, float(span), link)
    # an exchange takes three trips, and waits for a node that is engaged
    slack_s = 0.0 if link is IDEAL else 0.5
    counted: Counter[int] = Counter()
    for event in protocol.events:
        if event.what != "commit" or event.node > event.peer:
            continue
        pair = {(event.node, event.peer), (event.peer, event.node)}
        which = 0 if pair & AROUND else 1
        counted[which] += 1
        when = {math.floor(t / EVERY) % 2 for t in (event.time_s, event.time_s - slack_s)}
        assert which in when, event
    # 16 edges with the same rate, half of them in place
    chi_1, chi_2 = chi(AROUND, of=16)
    expected = math.sqrt(2 * chi_1 * chi_2) / 2 * span / 2
    for which in (0, 1):
        assert abs(counted[which] - expected) < 4 * math.sqrt(expected)
    facts = schedule_of(NODES, RINGS).facts()
    assert DADAO().traffic(facts)[dadao.Dual] * span / 2 == pytest.approx(2 * expected)


def test_gossips_of_the_worst_graph_are_frequent_enough_for_its_theory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """chi_1 chi_2 <= 1/2 for every single graph, with the largest chi_1 in the constants."""
    given: list[float] = []

    class Captured(State):
        def __init__(self, x: torch.Tensor, mu: float, smoothness: float, chi_1: float) -> None:
            super().__init__(x, mu, smoothness, chi_1)
            given.append(chi_1)

    monkeypatch.setattr(dadao, "State", Captured)
    run(STAR_AND_LINE, 1.0)
    facts = schedule_of(NODES, STAR_AND_LINE).facts()
    star, line = {(0, i) for i in range(1, NODES)}, {(i, i + 1) for i in range(NODES - 1)}
    edges = len(star | line)
    assert facts.edges == edges
    found = [chi(graph, of=edges) for graph in (star, line)]
    worst = max(chi_1 for chi_1, _ in found), max(chi_2 for _, chi_2 in found)
    assert facts.worst_chi == pytest.approx(worst)
    assert facts.worst_chi > (facts.chi_1, facts.chi_2)
    pace = math.sqrt(2 * math.prod(worst))
    assert given == pytest.approx([worst[0] / pace] * NODES)
    products = [chi_1 * chi_2 / pace**2 for chi_1, chi_2 in found]
    assert max(products) <= 0.5 + 1e-9
    assert min(products) < 0.4


def test_weights_of_every_graph_can_be_its_rates() -> None:
    """Counted per edge, against the weights of the graph in place."""
    span, tuned = 120.0, {"mixing": "least_gossip"}
    topology = in_turn({"kind": "barbell"} | tuned, {"kind": "ring"} | tuned)
    schedule = schedule_of(NODES, topology)
    facts = schedule.facts()
    protocol, result = run(topology, span, rates="weights")
    pace = math.sqrt(2 * math.prod(facts.weights_chi))
    commits = Counter((e.node, e.peer) for e in protocol.events if e.what == "commit")
    for i, j in schedule.union.edges:
        expected = pace * sum(phase.weights[i, j] for phase in schedule.phases) * span / 2
        assert abs(commits[i, j] - expected) < 5 * math.sqrt(expected) + 3
    total = sum(commits.values()) / 2
    assert DADAO(rates="weights").traffic(facts)[dadao.Dual] * span / 2 == pytest.approx(
        total, abs=4 * math.sqrt(total)
    )
    assert error(result) < 0.01


def test_another_graph_that_a_fault_may_put_in_place_counts_for_the_worst() -> None:
    ring, line = schedule_of(NODES, "ring"), schedule_of(NODES, "line")
    both = replace(ring, others=(line,)).facts()
    edges = {(i, i + 1) for i in range(NODES - 1)}
    assert both.worst_chi == pytest.approx(chi(edges, of=NODES))
    assert (both.chi_1, both.chi_2) == (ring.facts().chi_1, ring.facts().chi_2)
    assert ring.facts().worst_chi == (both.chi_1, both.chi_2)


REWIRED = """
nodes: 8
topology: ring
problem: {kind: quadratic, dim: 5}
protocol: {kind: dadao, unit: 1s}
stop: {time: 60s}
faults:
  - {id: cut-open, fault: graph.rewire, with: {topology: line}, from: 20s, to: 40s}
"""


def test_a_fault_puts_another_graph_in_place_and_takes_it_away_again() -> None:
    """The edge that closes the ring gossips before and after; a node changes with its next step."""
    protocol = TracedDADAO(unit=Duration(1.0))
    planned = plan(loads(REWIRED, "f.yaml"), "test").nodes
    simulate([p.model_copy(update={"protocol": protocol}) for p in planned], stop_s=60.0)
    ends = [e for e in protocol.events if e.what == "commit" and (e.node, e.peer) == (0, NODES - 1)]
    steps = [e.time_s for e in protocol.events if e.what == "step" and e.node == 0]
    gone_s, back_s = (min(t for t in steps if t > moment) for moment in (20, 40))
    spans = Counter((e.time_s > gone_s) + (e.time_s > back_s) for e in ends)
    assert min(spans[0], spans[2]) > 5
    # at most the points that had been drawn for the span in which it goes
    assert all(e.time_s < gone_s + 1 for e in ends if gone_s < e.time_s < back_s)


def test_graphs_that_are_connected_only_together_are_refused() -> None:
    """Its theory has chi_1 of every single graph."""
    matchings = in_turn(
        custom({(i, i + 1) for i in range(0, NODES, 2)}),
        custom({(i, (i + 1) % NODES) for i in range(1, NODES, 2)}),
    )
    schedule = schedule_of(NODES, matchings)
    assert schedule.union.connected
    with pytest.raises(ValueError, match="needs graphs that are each connected"):
        DADAO().check(schedule.union.in_degrees, schedule.facts())
