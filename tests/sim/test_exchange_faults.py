"""Exchanges under crashes, losses, slow ways and faulty protocols."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from support.plans import IDEAL, plans
from support.recording import counters, models
from support.scripts import TINY, Script, check_atomic, play, script
from support.virtual import run

from tidings.api import Message, Node, Outcome, Protocol, Weights
from tidings.errors import RunError
from tidings.links.shape import Dice, LinkShape
from tidings.protocols.asynchronous.dadao import DADAO, At, Dual
from tidings.runtime.exchange import Exchanger, carried_by
from tidings.runtime.node import RuntimeNode
from tidings.runtime.plan import ArmedFault
from tidings.runtime.simulation import Simulated, simulate
from tidings.v1 import data_pb2 as pb

pytestmark = pytest.mark.sim


# -- crashes ---------------------------------------------------------------------------------------


@script
async def one_starts(self: Script, node: Node) -> None:
    if node.id == 0:
        self.note(node, await node.exchange(1))
    elif node.id == 2:
        await node.sleep(60)
        self.note(node, await node.exchange(1, within_s=1.0))
    await node.sleep(120)


def test_a_starter_that_dies_before_its_commit_is_sent_leaves_one_in_doubt() -> None:
    # of node 0's sends the first is the ask, the second would be the commit
    protocol, result = play(one_starts, nodes=3, crash_before_send={0: 1})
    assert protocol.notes == [(2, 60.0, Outcome.DELIVERED)]
    assert counters(result, "exchange_in_doubt") == [1, 0]  # of nodes 1 and 2
    assert (0, 1, 50.0, 100.0) in protocol.commits
    assert (1, 0, 100.0, 50.0) not in protocol.commits


def test_an_answerer_that_dies_is_a_refusal_once_it_is_suspected() -> None:
    protocol, result = play(one_starts, crash_before_send={1: 0})
    assert protocol.notes == [(0, 1.0, Outcome.REFUSED)]
    assert counters(result, "exchange_in_doubt") == [0]
    assert protocol.commits == []


# -- slow and lossy ways ---------------------------------------------------------------------------


def losing(*lost: bool) -> tuple[LinkShape, int]:
    """A lossy link 0 -> 1 and the seed with which its first messages fare like that."""
    shape = LinkShape(loss=0.5)
    for seed in range(1000):
        dice = Dice(seed, 0, 1)
        if all(dice.draw(shape, k).lost == is_lost for k, is_lost in enumerate(lost)):
            return shape, seed
    raise AssertionError


@script
async def exchange_one_after_the_other(self: Script, node: Node) -> None:
    if node.id == 0:
        for _ in range(20):
            self.note(node, await node.exchange(1))
            await node.sleep(0.1)
    await node.sleep(40)


def test_an_ask_that_comes_again_when_all_is_over_changes_nothing() -> None:
    """The starter repeats its last commit on demand, and so must not be asked for it again."""
    old = ArmedFault(event="old", fault={"kind": "msg.replay"}, targets=(1,), at_s=0.0)
    protocol = Script("exchange_one_after_the_other")
    faults = {"per_node": {0: {"faults": (old,)}}}
    result = simulate(plans(2, "line", protocol, TINY, 1, link=IDEAL, **faults))
    assert [note[2] for note in protocol.notes] == [Outcome.DELIVERED] * 20
    check_atomic(protocol.commits)
    assert counters(result, "exchange_committed") == [20, 20]
    assert models(result)[:, 0].sum() == 300.0


@script
async def commit_lost_and_a_crowd(self: Script, node: Node) -> None:
    if node.id == 0:
        self.note(node, await node.exchange(1))
    elif node.id == 2:
        for _ in range(100):
            await node.sleep(0.3)
            self.note(node, await node.exchange(1))
    await node.sleep(40)


def test_others_that_keep_asking_do_not_keep_an_answerer_from_asking_again() -> None:
    shape, seed = losing(False, True, False)  # ask, commit, commit again

    def link(source: int, target: int) -> LinkShape:
        return shape if (source, target) == (0, 1) else IDEAL

    protocol, _ = play(commit_lost_and_a_crowd, nodes=3, link=link, seed=seed)
    assert protocol.notes[0] == (0, 0.0, Outcome.DELIVERED)
    first_s = min(at_s for _, at_s, outcome in protocol.notes[1:] if outcome is Outcome.DELIVERED)
    assert first_s < 3.0
    check_atomic(protocol.commits)


@pytest.mark.parametrize("slow", [(0, 1), (1, 0)])
def test_a_way_far_slower_than_the_other_does_not_break_an_exchange(slow: tuple[int, int]) -> None:
    """The value takes 64 s one way; nobody is suspected, so nobody is given up."""

    def link(source: int, target: int) -> LinkShape:
        return LinkShape(8000.0) if (source, target) == slow else IDEAL

    problem = TINY | {"dim": 16_000}
    protocol = Script("one_starts_slowly")
    result = simulate(plans(2, "line", protocol, problem, 1, link=link, wait_s=2000.0))
    assert [note[2] for note in protocol.notes] == [Outcome.DELIVERED]
    assert counters(result, "exchange_in_doubt") == [0, 0]
    check_atomic(protocol.commits)
    assert len(protocol.commits) == 2
    assert sum(final.links[0].messages for final in result.finals) < 30


@script
async def one_starts_slowly(self: Script, node: Node) -> None:
    if node.id == 0:
        self.note(node, await node.exchange(1))
    await node.sleep(1500)


@script
async def last_minute(self: Script, node: Node) -> None:
    if node.id == 0:
        self.note(node, await node.exchange(1))


def test_a_commit_that_is_lost_at_the_very_end_of_the_run_is_made_good() -> None:
    shape, seed = losing(False, True, True, False)
    protocol, result = play(last_minute, link=lambda i, j: shape if i == 0 else IDEAL, seed=seed)
    check_atomic(protocol.commits)
    assert len(protocol.commits) == 2
    assert models(result)[:, 0].sum() == 300.0
    assert counters(result, "exchange_in_doubt") == [0, 0]


# -- faults of the protocol ------------------------------------------------------------------------


@dataclass(frozen=True)
class Faulty(Protocol):
    """The commit of node 1 fails; its own part is over by then, or not."""

    busy_s: float

    async def run(self, node: Node) -> None:
        def commit(peer: int, mine: Weights, theirs: Weights) -> None:
            if node.id == 1:
                raise KeyError("commit")

        node.on_exchange(lambda peer, seen: Weights(node.model), commit)
        if node.id == 0:
            await node.sleep(1)
            await node.exchange(1)
        await node.sleep(self.busy_s)


@pytest.mark.parametrize("busy_s", [0.0, 20.0])
def test_a_commit_that_fails_fails_the_run_by_name(busy_s: float) -> None:
    with pytest.raises(RunError, match=r"node 1 failed: KeyError\('commit'\)"):
        simulate(plans(2, "line", Faulty(busy_s), TINY, 1, link=IDEAL))


@dataclass(frozen=True)
class Unregistered(Protocol):
    """Starts without having said how it takes part."""

    async def run(self, node: Node) -> None:
        await node.exchange(1 - node.id)


def test_an_exchange_needs_both_halves_first() -> None:
    with pytest.raises(RunError, match="needs on_exchange"):
        simulate(plans(2, "line", Unregistered(), TINY, 1))


@dataclass(frozen=True)
class Undeclared(Protocol):
    """Asks with something and does not say so."""

    async def run(self, node: Node) -> None:
        node.on_exchange(lambda p, s: Weights(node.model), lambda p, m, t: None)
        await node.exchange(1 - node.id, lambda: Weights(node.model))


def test_what_an_exchange_carries_must_be_declared() -> None:
    with pytest.raises(RunError, match="Weights in an exchange: declare it as 'asks_with'"):
        simulate(plans(2, "line", Undeclared(), TINY, 1))


# -- nonsense from a peer --------------------------------------------------------------------------


#: phase, number, starter, message
Handshake = tuple[int, int, int, Message | None]


@dataclass(frozen=True)
class Nonsense(DADAO):
    """DADAO; node 0 sends handshakes of its own making instead."""

    frames: list[Handshake] = field(default_factory=list, init=False)

    async def run(self, node: Node) -> None:
        if node.id != 0:
            await super().run(node)
            return
        assert isinstance(node, RuntimeNode)
        for phase, id_, starter, message in self.frames:
            header = pb.Exchange(phase=phase, id=id_, starter=starter)
            frame = node.codec.encode(message, 0, header)
            for target in node.neighbors:
                await node._world.transport.send(target, frame)


X = torch.zeros(2)


def of_every_kind() -> list[Handshake]:
    """Every phase with every message, and a phase that there is not, asking and answering."""
    contents: list[Message | None] = [None, At(t=1.0), Dual(t=1.0, m=X)]
    phases = [*pb.Exchange.Phase.values(), 17]
    return [(p, 1, who, m) for who in (0, 1, 9) for p in phases for m in contents]


def dishonest(frames: list[Handshake], **fields: Any) -> Simulated:
    protocol = Nonsense(mu=1.0, smoothness=10.0)
    protocol.frames.extend(frames)
    return simulate(plans(3, "complete", protocol, TINY, 5, link=IDEAL, **fields), stop_s=60.0)


def test_nonsense_in_an_exchange_is_refused_and_counted_and_fails_nobody() -> None:
    result = dishonest(of_every_kind())
    right = {  # of three messages each
        pb.Exchange.ASK: 1,
        pb.Exchange.OFFER: 1,
        pb.Exchange.REFUSE: 1,
        pb.Exchange.COMMIT: 1,
        pb.Exchange.ABORT: 1,
    }
    wrong = len(of_every_kind()) - 3 * sum(right.values())
    for final in result.finals[1:]:
        assert final.reception.refused["malformed"] == wrong
    assert counters(result, "exchange_committed")[1] > 0


def test_a_flood_of_handshakes_is_bounded() -> None:
    ask = (int(pb.Exchange.ASK), 1, 0, At(t=0.0))
    result = dishonest([ask] * 1000)
    for final in result.finals[1:]:
        assert final.reception.refused.get("malformed", 0) == 0
    side = Exchanger(1, nowhere, 1.0, frozenset(), carried_by(Nonsense()))
    header = pb.Exchange(phase=pb.Exchange.ASK, id=1, starter=0)
    verdicts = [side.arrived(0, header, At(t=0.0)) for _ in range(1000)]
    assert verdicts.count("overflow") == 1000 - verdicts.count(None) > 900
    assert side.arrived(2, header, At(t=0.0)) is None  # another peer is not to blame


async def nowhere(peer: int, header: pb.Exchange, message: Message | None) -> None:
    raise AssertionError


def test_an_ask_from_a_peer_that_cannot_be_answered_is_refused() -> None:
    """Node 1 hears node 0 and has no link to it."""
    protocol = Nonsense(mu=1.0, smoothness=10.0)
    protocol.frames.append((int(pb.Exchange.ASK), 1, 0, At(t=0.0)))
    made = plans(3, "complete", protocol, TINY, 5, link=IDEAL)
    phase = made[1].phases[0].model_copy(update={"out_neighbors": (2,)})
    links = {2: IDEAL}
    made[1] = made[1].model_copy(update={"links": links, "phases": (phase,)})
    result = simulate(made, stop_s=60.0)
    assert result.finals[1].reception.refused["not_a_neighbor"] == 1
    assert counters(result, "exchange_committed")[1] > 0


# -- one side alone --------------------------------------------------------------------------------


def test_a_refusal_and_an_ask_that_wait_together_are_both_answered() -> None:
    """While the answering task was held up, node 0 has refused our ask and sent one of its own."""

    async def main() -> tuple[Outcome, list[int]]:
        sent: list[int] = []

        async def transmit(peer: int, header: pb.Exchange, message: Message | None) -> None:
            sent.append(header.phase)

        side = Exchanger(1, transmit, 1.0, frozenset(), carried_by(Faulty(0.0)))
        side.register(lambda p, s: Weights(torch.zeros(1)), lambda p, m, t: None)
        started = asyncio.create_task(side.start(0, None, 10.0))
        await asyncio.sleep(0)
        side.arrived(0, pb.Exchange(phase=pb.Exchange.REFUSE, id=1, starter=1), None)
        side.arrived(0, pb.Exchange(phase=pb.Exchange.ASK, id=7, starter=0), None)
        serving = asyncio.create_task(side.serve())
        await asyncio.sleep(0.1)
        assert not serving.done()
        return await started, sent

    assert run(main()) == (Outcome.REFUSED, [pb.Exchange.ASK, pb.Exchange.OFFER])
