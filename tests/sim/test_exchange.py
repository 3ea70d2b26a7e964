"""Atomic pairwise exchange: both commit or neither does, nobody stays locked, everyone gets on."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from support.plans import plans
from support.recording import counters, models
from support.scripts import SECOND, TINY, Commit, Script, check_atomic, play, script, take_part

from tidings.api import Node, Outcome, Protocol
from tidings.links.shape import LinkShape
from tidings.runtime.simulation import simulate

pytestmark = pytest.mark.sim


async def until_delivered(node: Node, peer: int) -> None:
    while await node.exchange(peer) is not Outcome.DELIVERED:
        await node.sleep(0.02 * node.rng("back off").random())


# -- any weather -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trade(Protocol):
    """Every node makes so many exchanges and adds one to its model at random times meanwhile."""

    exchanges: int
    commits: list[Commit] = field(default_factory=list, init=False)
    added: Counter[int] = field(default_factory=Counter, init=False)

    async def run(self, node: Node) -> None:
        x = take_part(node, self.commits)
        x.fill_(float(node.rng("start").integers(1000, 2000)))
        self.added[node.id] = int(x[0])
        async with node.tasks() as tasks:
            tasks.start(self.change(node, x))
            for _ in range(self.exchanges):
                await node.sleep(0.1 * node.rng("pace").exponential())
                await until_delivered(node, int(node.rng("peer").choice(node.neighbors)))
                await node.report()

    async def change(self, node: Node, x: torch.Tensor) -> None:
        rng = node.rng("change")
        while True:
            await node.sleep(0.3 * rng.exponential())
            if rng.random() < 0.3:
                async with node.exclusive():
                    before = x.clone()
                    await node.sleep(0.01)
                    assert torch.equal(x, before)
            x.add_(1.0)
            self.added[node.id] += 1


def weather(seed: int) -> dict[str, Any]:
    """A graph and links drawn from the seed."""
    rng = np.random.default_rng(seed)
    link = LinkShape(
        rate_bit_per_s=float(rng.choice([math.inf, 1e6, 2e4])),
        delay_ns=int(rng.choice([0, 1_000_000, 50_000_000])),
        jitter_ns=int(rng.choice([0, 20_000_000])),
        jitter_kind="exponential",
        loss=float(rng.choice([0.0, 0.2])),
    )
    nodes = int(rng.integers(2, 6))
    topology = str(rng.choice(["complete", "line"] + (["ring"] if nodes > 2 else [])))
    return {"nodes": nodes, "topology": topology, "link": link}


@pytest.mark.parametrize("decade", range(20))
def test_sums_are_conserved_and_everyone_gets_on(decade: int) -> None:
    for seed in range(10 * decade, 10 * decade + 10):
        protocol = Trade(exchanges=3)
        made = plans(protocol=protocol, problem=TINY, rounds=None, seed=seed, **weather(seed))
        result = simulate(made, stop_s=1000.0, tie_seed=seed)
        where = f"seed {seed}: {weather(seed)}"
        assert result.reason is None, where  # everyone's exchanges came about
        assert models(result)[:, 0].sum() == sum(protocol.added.values()), where
        check_atomic(protocol.commits)
        assert counters(result, "exchange_in_doubt") == [0] * len(made), where
        made_by = Counter(node for node, *_ in protocol.commits)
        assert counters(result, "exchange_committed") == [made_by[k] for k in range(len(made))]
        assert len(protocol.commits) >= 2 * 3 * len(made)


# -- two nodes, step by step -----------------------------------------------------------------------


@script
async def both_start(self: Script, node: Node) -> None:
    self.note(node, await node.exchange(1 - node.id))


def test_when_both_start_at_once_the_lower_number_goes_first() -> None:
    protocol, result = play(both_start, link=LinkShape(delay_ns=SECOND))
    assert {note[0]: note[2] for note in protocol.notes} == {
        0: Outcome.DELIVERED,
        1: Outcome.REFUSED,
    }
    check_atomic(protocol.commits)
    assert len(protocol.commits) == 2
    assert models(result)[:, 0].tolist() == [150.0, 150.0]


@script
async def both_start_and_one_wants_to_be_alone(self: Script, node: Node) -> None:
    async with node.tasks() as tasks:
        outcome = tasks.start(node.exchange(1 - node.id))
        if node.id == 1:
            await node.sleep(0.5)
            async with node.exclusive():
                self.note(node, "alone")
                await node.sleep(3)
        self.note(node, await outcome)


def test_wanting_to_be_alone_while_both_start_does_not_lock_up() -> None:
    """Node 1 gives way to node 0's ask and refuses it as well, being about to be alone."""
    protocol, result = play(both_start_and_one_wants_to_be_alone, link=LinkShape(delay_ns=SECOND))
    assert (1, 1.0, "alone") in protocol.notes
    assert [note for note in protocol.notes if note[0] == 0] == [(0, 2.0, Outcome.REFUSED)]
    assert protocol.commits == []
    assert result.time_s < 10


@script
async def alone(self: Script, node: Node) -> None:
    if node.id == 0:
        async with node.exclusive():
            await node.sleep(5)
            self.note(node, len(self.commits))
    else:
        for _ in range(8):
            self.note(node, await node.exchange(0))
            await node.sleep(1)


def test_nothing_is_exchanged_inside_an_exclusive_block() -> None:
    protocol, _ = play(alone)
    assert (0, 5.0, 0) in protocol.notes
    outcomes = {at_s: outcome for who, at_s, outcome in protocol.notes if who == 1}
    assert all(outcomes[at_s] is Outcome.REFUSED for at_s in (0.0, 1.0, 2.0, 3.0, 4.0))
    assert outcomes[6.0] is outcomes[7.0] is Outcome.DELIVERED


@script
async def own_exchange_waits(self: Script, node: Node) -> None:
    if node.id == 0:
        async with node.tasks() as tasks:
            async with node.exclusive():
                later = tasks.start(node.exchange(1))
                await node.sleep(2)
                self.note(node, len(self.commits))
            self.note(node, await later)
    await node.sleep(5)


def test_an_own_exchange_waits_for_the_end_of_the_block() -> None:
    protocol, _ = play(own_exchange_waits)
    assert protocol.notes == [(0, 2.0, 0), (0, 2.0, Outcome.DELIVERED)]


@script
async def impatient(self: Script, node: Node) -> None:
    if node.id == 0:
        self.note(node, await node.exchange(1, within_s=0.5))
        self.note(node, await node.exchange(1, within_s=0.0))
    elif node.id == 2:
        await node.sleep(3.0)
        self.note(node, await node.exchange(1, within_s=1.0))
    await node.sleep(10)


def test_a_deadline_means_refused_and_does_not_leave_the_peer_locked() -> None:
    def link(source: int, target: int) -> LinkShape:
        return LinkShape(delay_ns=SECOND if (source, target) == (1, 0) else 0)

    protocol, result = play(impatient, nodes=3, link=link)
    assert protocol.notes == [
        (0, 0.5, Outcome.REFUSED),
        (0, 0.5, Outcome.REFUSED),
        (2, 3.0, Outcome.DELIVERED),
    ]
    assert {node for node, *_ in protocol.commits} == {1, 2}
    assert models(result)[0, 0] == 100.0


@script
async def abandoned(self: Script, node: Node) -> None:
    if node.id == 0:
        async with node.tasks() as tasks:
            tasks.start(node.exchange(1))
            await node.sleep(0.1)
    elif node.id == 2:
        await node.sleep(5.0)
        self.note(node, await node.exchange(1, within_s=1.0))
    await node.sleep(10)


def test_an_exchange_whose_task_is_cancelled_does_not_leave_the_peer_locked() -> None:
    protocol, _ = play(abandoned, nodes=3, link=LinkShape(delay_ns=200_000_000))
    assert [note[2] for note in protocol.notes] == [Outcome.DELIVERED]
    check_atomic(protocol.commits)
