"""A crash is a fence: what had left arrives, and nothing of the node is seen after it."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from support.plans import IDEAL, LINK, plans
from support.recording import Recorder

from tidings.api import Node, Protocol, Weights
from tidings.errors import NodeCrashed
from tidings.links.shape import LinkShape
from tidings.runtime.node import RuntimeNode
from tidings.runtime.simulation import simulate

pytestmark = pytest.mark.sim

VICTIM = 1
Trace = dict[int, list[tuple[int, str]]]


def trace_of(recorder: Recorder, nodes: int) -> Trace:
    """(round, digest) of all that came from the victim, by receiver."""
    return {
        node: [
            (event["round"], event["digest"])
            for event in recorder.named("received", node)
            if event["source"] == VICTIM
        ]
        for node in range(nodes)
        if node != VICTIM
    }


# -- the prefix ------------------------------------------------------------------------------------


@pytest.mark.parametrize("link", [IDEAL, LINK, LinkShape(1e5, 3_000_000, loss=0.2)])
@pytest.mark.parametrize(
    ("topology", "protocol"),
    [
        ("complete", {"kind": "d_psgd", "lr": 0.05}),
        ("ring", {"kind": "choco_sgd", "lr": 0.05}),
        ("star", {"kind": "fed_avg", "lr": 0.05}),
    ],
)
def test_receivers_see_a_prefix(topology: str, protocol: dict[str, Any], link: LinkShape) -> None:
    made = plans(4, topology, protocol, rounds=6, link=link, wait_s=1.0, trace=True)
    whole = Recorder()
    simulate(made, whole)
    full = trace_of(whole, 4)
    sends = sum(map(len, full.values()))
    assert sends >= 3
    for crash_at in range(sends):
        recorder = Recorder()
        result = simulate(made, recorder, crash_before_send={VICTIM: crash_at})
        seen = trace_of(recorder, 4)
        assert [final.node for final in result.finals] == [0, 2, 3]
        for node, received in seen.items():
            assert received == full[node][: len(received)]
        arrived = sum(map(len, seen.values()))
        assert arrived <= crash_at
        if link == IDEAL:
            assert arrived == crash_at


def test_a_broadcast_can_be_cut_in_the_middle() -> None:
    protocol = {"kind": "d_psgd", "lr": 0.05}
    made = plans(4, "complete", protocol, rounds=4, link=IDEAL, wait_s=1.0, trace=True)
    recorder = Recorder()
    simulate(made, recorder, crash_before_send={VICTIM: 4})
    rounds = {n: [r for r, _ in seen] for n, seen in trace_of(recorder, 4).items()}
    assert rounds == {0: [0, 1], 2: [0], 3: [0]}


# -- careless protocols ----------------------------------------------------------------------------

Behaviour = Callable[[Node], Awaitable[None]]


async def say(node: Node) -> None:
    await node.send_all(node.to_neighbors(Weights(node.model)))


async def swallow_exceptions(node: Node) -> None:
    for _ in range(50):
        try:
            await say(node)
            await node.sleep(0.1)
        except Exception:
            pass


async def say_goodbye(node: Node) -> None:
    try:
        for _ in range(50):
            await say(node)
            await node.sleep(0.1)
    finally:
        await node.send(0, Weights(node.model))


async def swallow_everything(node: Node) -> None:
    for _ in range(50):
        try:
            await say(node)
            await node.sleep(0.1)
        except BaseException:
            pass


async def protest(node: Node) -> None:
    try:
        while True:
            await say(node)
            await node.sleep(0.1)
    except BaseException:
        for effect in (
            lambda: node.log("I live"),
            lambda: node.rng("last words").random(),
            node.tasks,
        ):
            with pytest.raises(NodeCrashed):
                effect()
        for effort in (node.report, lambda: node.gradient(node.model), lambda: say(node)):
            with pytest.raises(NodeCrashed):
                await effort()
        raise


async def delegate(node: Node) -> None:
    async def chatter() -> None:
        while True:
            try:
                await say(node)
            finally:
                await node.sleep(0.1)

    async with node.tasks() as tasks:
        for _ in range(3):
            tasks.start(chatter())
        await node.sleep(100)


async def run_away(node: Node) -> None:
    """A task that belongs to no block and does not end when it is cancelled."""

    async def outlive() -> None:
        for _ in range(60):
            try:
                await asyncio.sleep(0.1)
                await say(node)
                node.log("said")
            except BaseException:
                pass

    task = asyncio.create_task(outlive())
    await node.sleep(3)
    await task


@dataclass(frozen=True)
class Careless(Protocol):
    """The victim behaves as the function of that name, the others listen."""

    behaviour: str

    async def run(self, node: Node) -> None:
        if node.id == VICTIM:
            await globals()[self.behaviour](node)
        else:
            for _ in range(600):
                await node.sleep(0.01)  # so that there is always a next moment


@pytest.mark.parametrize(
    "behaviour", [swallow_exceptions, say_goodbye, swallow_everything, protest, delegate, run_away]
)
@pytest.mark.parametrize("crash_at", [0, 3, 7])
def test_nothing_is_seen_of_a_dead_node_whatever_it_tries(
    behaviour: Behaviour, crash_at: int, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder()
    made = plans(4, "complete", Careless(behaviour.__name__), rounds=5, link=IDEAL, trace=True)
    result = simulate(made, recorder, crash_before_send={VICTIM: crash_at})
    seen = trace_of(recorder, 4)
    assert sum(map(len, seen.values())) == crash_at
    died_s = 0.1 * (crash_at // 3 + 1)
    assert all(event.time_s <= died_s for event in recorder.events if event.node == VICTIM)
    assert [row.time_s for row in recorder.rows if row.node == VICTIM] == [0.0]
    assert [final.node for final in result.finals] == [0, 2, 3]
    gc.collect()
    assert [r for r in caplog.records if r.levelno >= logging.ERROR] == []


# -- each effect -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Effects(Protocol):
    """Tries every effect of a node that is dead."""

    tried: list[str] = field(default_factory=list, init=False)

    async def run(self, node: Node) -> None:
        assert isinstance(node, RuntimeNode)
        if node.id != VICTIM:
            await node.sleep(1)
            return
        rounds = node.rounds()
        next(rounds)
        message = Weights(node.model)
        node.on_exchange(lambda p, s: message, lambda p, m, t: None)
        node.crash()
        now: dict[str, Callable[[], object]] = {
            "rng": lambda: node.rng("x"),
            "shared_rng": lambda: node.shared_rng("x"),
            "log": lambda: node.log("x"),
            "rounds": lambda: next(rounds),
            "tasks": node.tasks,
            "exclusive": node.exclusive,
        }
        later: dict[str, Callable[[], Awaitable[object]]] = {
            "send": lambda: node.send(0, message),
            "send_all": lambda: node.send_all({0: message}),
            "gather": lambda: node.gather(Weights),
            "recv": lambda: node.recv(Weights),
            "messages": lambda: anext(node.messages(Weights)),
            "gradient": lambda: node.gradient(node.model),
            "compute": lambda: node.compute(lambda: 1),
            "report": node.report,
            "exchange": lambda: node.exchange(0),
            "sleep": lambda: node.sleep(1),
            "ended": node.ended,
        }
        for name, effect in now.items():
            with pytest.raises(NodeCrashed):
                effect()
            self.tried.append(name)
        for name, effort in later.items():
            with pytest.raises(NodeCrashed):
                await effort()
            self.tried.append(name)


def test_every_effect_of_a_dead_node_raises() -> None:
    protocol = Effects()
    simulate(plans(2, "line", protocol, rounds=3))
    assert len(protocol.tried) == 17


# -- wherever it happens ---------------------------------------------------------------------------


class KillAt(Recorder):
    """Kills the victim at a moment, wherever it is."""

    interval_s = 0.01

    def __init__(self, time_s: float) -> None:
        super().__init__()
        self.time_s = time_s

    def progress(self, time_s: float, nodes: Sequence[RuntimeNode]) -> str | None:
        if time_s >= self.time_s and not nodes[VICTIM].dead:
            nodes[VICTIM].crash()
        return None


async def in_a_gather(node: Node) -> None:
    await node.gather(Weights, within_s=50)


async def in_a_recv(node: Node) -> None:
    await node.recv(Weights, within_s=50)


async def in_a_sleep(node: Node) -> None:
    await node.sleep(50)


async def in_an_exchange(node: Node) -> None:
    node.on_exchange(lambda p, s: Weights(node.model), lambda p, m, t: None)
    await node.exchange(0, within_s=50)


async def in_a_computation(node: Node) -> None:
    await node.compute(lambda: None, gradients=25_000)  # of 2 ms


async def in_back_pressure(node: Node) -> None:
    for _ in range(1000):
        await say(node)


@pytest.mark.parametrize(
    "behaviour",
    [in_a_gather, in_a_recv, in_a_sleep, in_an_exchange, in_a_computation, in_back_pressure],
)
def test_a_node_dies_wherever_it_waits(behaviour: Behaviour) -> None:
    slow = LinkShape(8e4, delay_ns=1_000_000, queue_bytes=500)
    made = plans(3, "complete", Careless(behaviour.__name__), rounds=5, link=slow, trace=True)
    recorder = KillAt(0.5)
    result = simulate(made, recorder)
    assert result.time_s == pytest.approx(6.0)
    assert result.nodes[VICTIM].dead
    assert result.nodes[VICTIM].waiting.describe() == []
    assert result.nodes[VICTIM].ledger.gradients == 0
    # what had left by 0.5 s still arrives, a flight of 1 ms later
    assert all(e["time_s"] <= 0.503 for e in recorder.named("received") if e["source"] == VICTIM)


def test_what_had_left_arrives_and_what_had_not_does_not() -> None:
    """1 kB a second on the link: of a frame every 0.07 s only what was sent before the death."""
    slow = LinkShape(8e3, delay_ns=2_000_000_000, queue_bytes=10**6)
    made = plans(2, "line", Careless("in_back_pressure"), rounds=5, link=slow, trace=True)
    recorder = KillAt(1.0)
    result = simulate(made, recorder)
    frame_bytes = result.nodes[VICTIM].ledger.sent().total / 1000
    times = [e["time_s"] for e in recorder.named("received", 0)]
    assert len(times) == int(1000 / frame_bytes)
    assert all(2.0 < t <= 3.0 + 1e-9 for t in times)


def test_what_is_sent_to_the_dead_is_counted_as_undeliverable() -> None:
    protocol = {"kind": "d_psgd", "lr": 0.05}
    made = plans(2, "line", protocol, rounds=6, link=IDEAL, wait_s=0.1)
    result = simulate(made, crash_before_send={VICTIM: 2})
    link = result.finals[0].links[0]
    assert link.messages == 6
    assert link.undeliverable_messages == 4
    first_bytes, later_bytes = 4 * 12 + 6 + 5, 4 * 12 + 6 + 7  # round 0 is left out of a header
    assert link.bytes.payload + link.bytes.header == first_bytes + 5 * later_bytes
    assert link.undeliverable_bytes == 4 * later_bytes
