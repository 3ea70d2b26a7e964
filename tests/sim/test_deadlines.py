"""Every wait has a deadline and a policy, and what does not come in time is counted."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from support.plans import IDEAL, plans
from support.recording import Recorder, models, refused

from tidings.api import Inbox, Message, Node, Outcome, Protocol, Weights
from tidings.links.shape import LinkShape
from tidings.runtime.node import RuntimeNode
from tidings.runtime.plan import Phase
from tidings.runtime.simulation import Simulated, simulate
from tidings.wire.frame import ByteCount, Frame

pytestmark = pytest.mark.sim

LR = {"kind": "d_psgd", "lr": 0.05}


@dataclass(frozen=True)
class Gathers(Protocol):
    """Node i sends its number to all after ``after_s[i]``; node 0 gathers, and notes the result."""

    after_s: Mapping[int, tuple[float, ...]]
    options: Mapping[str, Any] = field(default_factory=dict)
    seen: list[tuple[float, list[int], tuple[int, ...]]] = field(default_factory=list, init=False)

    async def run(self, node: Node) -> None:
        if node.id == 0:
            inbox: Inbox[Weights] = await node.gather(Weights, **self.options)
            self.seen.append((node.clock.now_s, list(inbox), inbox.missing))
            await node.sleep(100)
            return
        for time_s in self.after_s.get(node.id, ()):
            await node.sleep(time_s - node.clock.now_s)
            await node.send(0, Weights(node.model))


def gather(
    after_s: Mapping[int, tuple[float, ...]], options: Mapping[str, Any], **plan: Any
) -> tuple[tuple[float, list[int], tuple[int, ...]], Counter[str]]:
    """When node 0 of a star of five had what, what was missing, and what was counted."""
    protocol = Gathers(after_s, options)
    made = plans(5, "complete", protocol, rounds=1, link=IDEAL, wait_s=10.0, **plan)
    result = simulate(made)
    return protocol.seen[0], Counter(result.finals[0].reception.refused)


EACH = {1: (1.0,), 2: (2.0,), 3: (3.0,), 4: (4.0,)}


@pytest.mark.parametrize(
    ("options", "seen"),
    [
        ({}, (4.0, [1, 2, 3, 4], ())),
        ({"within_s": 2.5}, (2.5, [1, 2], (3, 4))),
        ({"within_s": 0.0}, (0.0, [], (1, 2, 3, 4))),
        ({"within_s": math.inf}, (4.0, [1, 2, 3, 4], ())),
        ({"of": (2, 3)}, (3.0, [2, 3], ())),
        ({"of": ()}, (0.0, [], ())),
        ({"wait_for": 2}, (2.0, [1, 2], (3, 4))),
        ({"wait_for": 0}, (0.0, [], (1, 2, 3, 4))),
        ({"wait_for": 99}, (4.0, [1, 2, 3, 4], ())),
        ({"wait_for": 3, "within_s": 1.5}, (1.5, [1], (2, 3, 4))),
        ({"wait_for": 1, "of": (3, 4)}, (3.0, [3], (4,))),
    ],
)
def test_who_is_waited_for_and_until_when(
    options: dict[str, Any], seen: tuple[float, list[int], tuple[int, ...]]
) -> None:
    got, counted = gather(EACH, options)
    assert got == seen
    assert counted["missing"] == len(seen[2])
    if "of" not in options:
        assert counted["late"] == len(seen[2])


@pytest.mark.parametrize(("policy", "over_s"), [("all", 10.0), (3, 3.0), ("live", 10.0)])
def test_the_experiments_policy_is_the_default(policy: str | int, over_s: float) -> None:
    seen, _ = gather({k: v for k, v in EACH.items() if k != 4}, {}, wait_for=policy)
    assert seen == (over_s, [1, 2, 3], (4,))


def test_what_comes_too_late_twice_or_unasked_is_counted() -> None:
    after_s = {1: (1.0, 1.5), 2: (1.0,), 3: (6.0,)}
    seen, counted = gather(after_s, {"of": (1, 3), "within_s": 3.0})
    assert seen == (3.0, [1], (3,))
    # node 1's second, node 2's that nobody asked for, node 3's that came after
    assert counted == {"duplicate": 1, "late": 2, "missing": 1}


def test_no_more_waits_in_a_mailbox_than_its_limit() -> None:
    _, counted = gather({1: (1.0,) * 20}, {"within_s": 5.0}, mailbox_messages=6)
    assert counted == {"overflow": 14, "duplicate": 5, "missing": 3}


# -- missing weight goes to self -------------------------------------------------------------------


@dataclass(frozen=True)
class Mixing(Protocol):
    """Plain gossip from the node's number, or from one; counts what was missing."""

    start: float | None = None

    async def run(self, node: Node) -> None:
        node.model.fill_(node.id if self.start is None else self.start)
        for _ in node.rounds():
            await node.send_all(node.to_neighbors(Weights(node.model)))
            inbox = await node.gather(Weights)
            node.model = node.mix(node.model, inbox)
            heard = sum(node.weight(j) for j in (node.id, *inbox))
            node.log("row", missing=len(inbox.missing), heard=heard)


def test_the_weight_of_a_lost_message_goes_to_self() -> None:
    lossy = LinkShape(delay_ns=1_000_000, loss=0.3)
    recorder = Recorder()
    made = plans(6, "ring", Mixing(1.0), rounds=30, link=lossy, wait_s=0.5)
    result = simulate(made, recorder)
    assert refused(result)["missing"] > 20
    rows = recorder.named("row")
    assert {row["missing"] for row in rows} == {0, 1, 2}
    assert all((row["heard"] == pytest.approx(1.0)) == (row["missing"] == 0) for row in rows)
    # rows still sum to one: what all agree on stays as it is, exactly
    assert (models(result) == 1.0).all()


def test_missing_is_counted_for_every_lost_message() -> None:
    """One way only is lossy and every wait is longer than any detour, so nothing is ever late."""

    def link(source: int, target: int) -> LinkShape:
        return LinkShape(loss=0.4 if source == 0 else 0.0)

    @dataclass(frozen=True)
    class OneWay(Protocol):
        """Node 0 sends every second, node 1 gathers within half of one."""

        async def run(self, node: Node) -> None:
            for k in node.rounds():
                await node.sleep(k + 0.25 * node.id - node.clock.now_s)
                if node.id == 0:
                    await node.send(1, Weights(node.model))
                else:
                    await node.gather(Weights, within_s=0.5)

    result = simulate(plans(2, "line", OneWay(), rounds=50, link=link))
    lost = result.finals[0].links[0].lost_messages
    assert 8 <= lost <= 32  # 20 expected, 3.5 sigma
    assert refused(result) == {"missing": lost}


# -- a crashed neighbour ---------------------------------------------------------------------------


def with_a_crash(wait_for: str | int) -> Simulated:
    made = plans(5, "complete", LR, rounds=10, link=IDEAL, wait_for=wait_for, wait_s=5.0)
    return simulate(made, crash_before_send={4: 8}, suspect_after_s=1.5)


def test_waiting_for_all_pays_the_deadline_every_round() -> None:
    result = with_a_crash("all")
    # rounds of 2 ms compute; node 4 is there for the first two, of the third nobody hears it
    assert result.time_s == pytest.approx(8 * 5.0 + 10 * 0.002, abs=1e-6)
    assert refused(result) == {"missing": 4 * 8}
    assert [final.node for final in result.finals] == [0, 1, 2, 3]


def test_waiting_for_the_living_pays_until_the_suspicion() -> None:
    result = with_a_crash("live")
    assert result.time_s == pytest.approx(1.5 + 10 * 0.002, abs=0.002)
    assert refused(result) == {"missing": 4 * 8}


def test_a_quorum_does_not_pay_at_all() -> None:
    result = with_a_crash(3)
    assert result.time_s == pytest.approx(10 * 0.002, abs=1e-6)


def test_live_neighbors() -> None:
    @dataclass(frozen=True)
    class Look(Protocol):
        """Notes whom it thinks alive."""

        async def run(self, node: Node) -> None:
            for _ in node.rounds():
                await node.send_all(node.to_neighbors(Weights(node.model)))
                await node.sleep(1.0)
                node.log("live", peers=node.live_neighbors)

    recorder = Recorder()
    made = plans(3, "ring", Look(), rounds=5, link=IDEAL)
    simulate(made, recorder, crash_before_send={2: 3}, suspect_after_s=1.5)
    # node 2 dies at 1 s, in the second round, and is suspected at 2.5 s
    assert [row["peers"] for row in recorder.named("live", 0)] == [[1, 2]] * 2 + [[1]] * 3


# -- strangers and rubbish -------------------------------------------------------------------------


@dataclass(frozen=True)
class Stray(Protocol):
    """Node 0 tries to reach node 2, which is no neighbour on a line."""

    outcomes: list[object] = field(default_factory=list, init=False)

    async def run(self, node: Node) -> None:
        node.on_exchange(lambda p, s: Weights(node.model), lambda p, m, t: None)
        if node.id == 0:
            self.outcomes.append(await node.send(2, Weights(node.model)))
            self.outcomes.append(await node.exchange(2))
            await node.send_all({1: Weights(node.model), 2: Weights(node.model)})
            await node.sleep(1)


def test_a_send_to_a_stranger_is_refused_and_counted() -> None:
    protocol = Stray()
    result = simulate(plans(3, "line", protocol, rounds=1))
    assert protocol.outcomes == [Outcome.REFUSED, Outcome.REFUSED]
    assert Counter(result.finals[0].reception.refused) == {"not_a_neighbor": 3}
    assert result.deliveries == 1  # what went to node 1


def test_a_message_from_a_stranger_is_refused_and_counted() -> None:
    deaf = {"phases": (Phase(out_neighbors=(1,), weights={1: 0.5}, self_weight=0.5),)}
    made = plans(3, "complete", Mixing(), rounds=3, wait_s=0.1, per_node={2: deaf})
    result = simulate(made)
    assert Counter(result.finals[2].reception.refused)["not_a_neighbor"] == 3
    assert {link.source for link in result.finals[2].reception.links} == {1}


@dataclass(frozen=True)
class Rubbish(Protocol):
    """Node 0 puts bytes on the wire that are no frames, then a good one."""

    async def run(self, node: Node) -> None:
        assert isinstance(node, RuntimeNode)
        if node.id == 0:
            good = node.codec.encode(Weights(node.model), 0).joined()
            for data in (b"rubbish", good[:-1], good[:6] + b"\xff" * 20, bytes(2000), good):
                frame = Frame((data,), ByteCount(control=len(data)))
                await node._world.transport.send(1, frame)
        else:
            inbox = await node.gather(Weights, within_s=5)
            assert inbox.complete


def test_rubbish_is_counted_and_the_node_goes_on() -> None:
    result = simulate(plans(2, "line", Rubbish(), rounds=1))
    counted = Counter(result.finals[1].reception.refused)
    assert sum(counted.values()) == 4
    assert set(counted) <= {"malformed", "truncated", "oversized", "wrong_shape"}
    assert result.finals[1].reception.messages == 1


# -- waiting for the next message ------------------------------------------------------------------


@dataclass(frozen=True)
class Receives(Protocol):
    """Node 1 sends at 1 s and 2 s; node 0 receives with deadlines."""

    seen: list[tuple[bool, float]] = field(default_factory=list, init=False)

    async def run(self, node: Node) -> None:
        if node.id == 1:
            for _ in range(2):
                await node.sleep(1)
                await node.send(0, Weights(torch.zeros_like(node.model)))
            return
        for within_s in (0.5, 1.0, 0.0, 0.75, 5.0):
            delivery = await node.recv(Message, within_s)
            self.seen.append((delivery is not None, node.clock.now_s))


def test_the_next_message_or_none_at_the_deadline() -> None:
    protocol = Receives()
    simulate(plans(2, "line", protocol, rounds=1, link=IDEAL))
    assert protocol.seen == [(False, 0.5), (True, 1.0), (False, 1.0), (False, 1.75), (True, 2.0)]
