"""AD-PSGD: a replay of its events in matrix form, conservation, and independence of stragglers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest
from support.bowls import Bowls, Matrix
from support.plans import LINK, plans
from support.recording import counters, models
from support.watched import Happened, Watched, committed_pairs

from tidings.api import Node
from tidings.links.shape import LinkShape
from tidings.protocols.asynchronous.ad_psgd import ADPSGD
from tidings.runtime.plan import ComputePlan
from tidings.runtime.simulation import Simulated, simulate

pytestmark = pytest.mark.oracle

BOWLS = Bowls()
LR = 0.02


@dataclass(frozen=True)
class Traced(ADPSGD):
    """Writes down what happens, in order."""

    events: list[Happened] = field(default_factory=list, init=False)

    async def run(self, node: Node) -> None:
        await super().run(Watched(node, self.events))  # type: ignore[arg-type]


def replay(events: list[Happened], nodes: int) -> tuple[Matrix, Matrix]:
    """The models at the end, and the sum of all gradient steps."""
    a, b = BOWLS.matrices(nodes)
    x, seen = np.zeros((nodes, BOWLS.dim)), np.zeros((nodes, BOWLS.dim))
    offered: dict[tuple[int, int], Matrix] = {}
    in_return = committed_pairs(events)
    steps = np.zeros(BOWLS.dim)
    for event in events:
        i, j = event.node, event.peer
        if event.what == "look":
            seen[i] = x[i]
        elif event.what == "step":
            gradient = a[i] @ (seen[i] - b[i])
            x[i] -= LR * gradient
            steps -= LR * gradient
        elif event.what == "offer":
            offered[i, event.offer] = x[i].copy()
        else:
            theirs = in_return[i, event.offer]
            x[i] += (offered[j, theirs] - offered[i, event.offer]) / 2
    return x, steps


LINKS = {
    "fast": LinkShape(),
    "delayed": LINK,
    "bad": LinkShape(1e6, 5_000_000, 5_000_000, "exponential", loss=0.15),
}


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize(("topology", "nodes"), [("ring", 6), ("complete", 4), ("line", 2)])
def test_a_replay_in_matrix_form(topology: str, nodes: int, link: str) -> None:
    protocol = Traced(LR)
    spread = ComputePlan(time_s=0.02, spread=0.5)
    made = plans(nodes, topology, protocol, BOWLS, 40, link=LINKS[link], compute=spread)
    result = simulate(made, tie_seed=3)
    x, steps = replay(protocol.events, nodes)
    np.testing.assert_allclose(models(result), x, rtol=1e-4, atol=1e-4)
    # averaging changes nothing but the shares: the sum moves by the gradient steps alone
    np.testing.assert_allclose(models(result).sum(axis=0), steps, rtol=1e-4, atol=1e-4)
    happened = Counter((event.what, event.node) for event in protocol.events)
    assert all(happened["step", i] == happened["look", i] == 40 for i in range(nodes))
    # every step has an averaging of the node's own, and both ends of each have committed
    assert counters(result, "exchange_committed") == [happened["commit", i] for i in range(nodes)]
    assert sum(happened["commit", i] for i in range(nodes)) == 2 * 40 * nodes


def run(slow_factor: float, protocol: str) -> Simulated:
    slow = {0: {"compute": ComputePlan(time_s=0.02, factor=slow_factor)}}
    made = plans(
        6,
        "ring",
        {"kind": protocol, "lr": LR},
        BOWLS,
        None,
        link=LinkShape(delay_ns=1_000_000),
        compute=ComputePlan(time_s=0.02),
        per_node=slow,
    )
    return simulate(made, stop_s=4.0)


def test_nobody_waits_for_a_straggler() -> None:
    """Lian et al. 2018: fast workers keep their pace; a synchronous round is the slowest's."""

    def steps(slow_factor: float, protocol: str) -> list[int]:
        return [node.ledger.completed for node in run(slow_factor, protocol).nodes]

    even, uneven = steps(1.0, "ad_psgd"), steps(10.0, "ad_psgd")
    assert min(uneven[1:]) > 0.8 * min(even[1:])
    assert uneven[0] < 0.15 * even[0]
    assert max(steps(10.0, "d_psgd")) < 0.15 * min(steps(1.0, "d_psgd"))


def test_partners_are_drawn_evenly() -> None:
    protocol = Traced(LR)
    simulate(plans(4, "complete", protocol, BOWLS, 150, link=LinkShape()))
    pairs = Counter(
        (min(e.node, e.peer), max(e.node, e.peer)) for e in protocol.events if e.what == "commit"
    )
    # 600 averagings over 6 pairs, each committed twice: 200 +- 4 sqrt(2 * 200)
    assert len(pairs) == 6
    assert all(abs(count - 200) < 80 for count in pairs.values())


def test_slow_links_neither_couple_nodes_nor_starve_any() -> None:
    """Where an averaging takes far longer than a step, somebody is almost always engaged."""
    problem = {"kind": "quadratic", "dim": 20_000, "structure": "diagonal"}
    slow = LinkShape(4e6, 5_000_000)
    compute = ComputePlan(time_s=0.02)
    protocol = {"kind": "ad_psgd", "lr": LR}
    result = simulate(
        plans(6, "ring", protocol, problem, None, link=slow, compute=compute), stop_s=60.0
    )
    steps = [node.ledger.completed for node in result.nodes]
    assert min(steps) > 0.4 * np.mean(steps)
    links = [link for node in result.nodes for link in node.ledger.links.values()]
    payload = [link.counts.payload for link in links]
    assert min(payload) > 0.4 * np.mean(payload)
