"""How a run ends: by its limits, by failure, by deadlock; and protocols made of handlers."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from support.plans import IDEAL, plans
from support.recording import Recorder, models

from tidings.api import Message, Node, Outcome, Protocol, Reactive, Weights, on
from tidings.errors import Deadlock, RunError
from tidings.runtime.node import RuntimeNode
from tidings.runtime.observer import Observer
from tidings.runtime.simulation import simulate

pytestmark = pytest.mark.sim


# -- the end ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Endless(Protocol):
    """Runs until it is stopped."""

    async def run(self, node: Node) -> None:
        for _ in node.rounds():
            await node.sleep(0.1)
            await node.report()


class StopAt(Observer):
    """Stops when a condition is seen."""

    interval_s = 0.25

    def __init__(self, rows: int | None = None, progress_s: float | None = None) -> None:
        self.rows, self.progress_s = rows, progress_s
        self.seen: list[float] = []

    def evaluation(self, row: Any) -> str | None:
        return "enough rounds" if row.round == self.rows else None

    def progress(self, time_s: float, nodes: Sequence[RuntimeNode]) -> str | None:
        self.seen.append(time_s)
        stop = self.progress_s is not None and time_s >= self.progress_s
        return f"{len(nodes)} nodes seen" if stop else None


def test_stop_by_time() -> None:
    result = simulate(plans(3, "ring", Endless(), rounds=None), stop_s=2.05)
    assert (result.time_s, result.reason) == (2.05, "time limit of 2.05 s")
    assert [node.ledger.completed for node in result.nodes] == [20] * 3


def test_stop_by_an_evaluation() -> None:
    made = plans(3, "ring", Endless(), rounds=None, evaluate_rounds=5)
    result = simulate(made, StopAt(rows=15))
    assert (result.time_s, result.reason) == (pytest.approx(1.5), "enough rounds")


def test_stop_by_progress() -> None:
    observer = StopAt(progress_s=1.0)
    result = simulate(plans(3, "ring", Endless(), rounds=None), observer)
    assert (result.time_s, result.reason) == (pytest.approx(1.0, abs=0.11), "3 nodes seen")
    assert len(observer.seen) == 4


def test_the_end_of_all_nodes_is_the_end() -> None:
    result = simulate(plans(3, "ring", Endless(), rounds=7), stop_s=100.0)
    assert (result.time_s, result.reason) == (pytest.approx(0.7), None)


def test_every_node_is_measured_at_the_start_and_at_the_end() -> None:
    recorder = Recorder()
    protocol = {"kind": "d_psgd", "lr": 0.05}
    simulate(plans(3, "ring", protocol, rounds=10, evaluate_rounds=4), recorder)
    for node in range(3):
        rows = [(row.round, row.final) for row in recorder.rows if row.node == node]
        assert rows == [(0, False), (4, False), (8, False), (10, True)]


@dataclass(frozen=True)
class Counting(Protocol):
    """Reports the number of the round."""

    async def run(self, node: Node) -> None:
        for number in node.rounds():
            await node.sleep(0.1)
            await node.report(number=number)


def test_what_was_reported_last_is_in_the_last_row() -> None:
    recorder = Recorder()
    simulate(plans(1, "line", Counting(), rounds=10, evaluate_rounds=4), recorder)
    found = [row.metrics.get("number") for row in recorder.rows]
    assert found == [None, 3, 7, 9]


def test_evaluation_by_time() -> None:
    recorder = Recorder()
    simulate(plans(1, "line", Endless(), rounds=20, evaluate_s=0.5), recorder)
    assert [row.time_s for row in recorder.rows] == pytest.approx([0, 0.5, 1.0, 1.5, 2.0])


@dataclass(frozen=True)
class Stumble(Protocol):
    """Node 1 fails in its fourth round."""

    async def run(self, node: Node) -> None:
        for k in node.rounds():
            await node.sleep(0.1)
            if node.id == 1 and k == 3:
                raise KeyError("no such thing")


def test_a_protocol_that_fails_fails_the_run_by_name() -> None:
    with pytest.raises(RunError, match=r"node 1 failed: KeyError\('no such thing'\)") as caught:
        simulate(plans(3, "ring", Stumble(), rounds=10))
    assert isinstance(caught.value.__cause__, KeyError)


@dataclass(frozen=True)
class WaitForEver(Protocol):
    """Node 0 waits for a round, 1 for a message, 2 for the end, and 3 not at all."""

    async def run(self, node: Node) -> None:
        await node.sleep(0.5)
        if node.id == 0:
            await node.gather(Weights, of=(1, 3), within_s=math.inf)
        elif node.id == 1:
            await node.recv(Weights, math.inf)
        elif node.id == 2:
            await node.ended()


def test_deadlock_is_a_verdict_that_says_who_waits_for_what() -> None:
    with pytest.raises(Deadlock) as caught:
        simulate(plans(4, "ring", WaitForEver(), rounds=1))
    assert str(caught.value).splitlines() == [
        "nothing can run and no timer is pending; waiting:",
        "  node 0: Weights of round 0 from 1, 3 since 0.500 s",
        "  node 1: the next Weights since 0.500 s",
        "  node 2: the end of the run since 0.500 s",
    ]


@dataclass(frozen=True)
class Nobody(Protocol):
    """Starts an exchange that is never answered, because nobody else takes part."""

    async def run(self, node: Node) -> None:
        if node.id == 0:
            node.on_exchange(lambda p, s: Weights(node.model), lambda p, m, t: None)
            outcome = await node.exchange(1, within_s=math.inf)
            assert outcome is Outcome.REFUSED


def test_an_exchange_may_wait_without_a_deadline() -> None:
    assert simulate(plans(2, "line", Nobody(), rounds=1)).reason is None


# -- handlers --------------------------------------------------------------------------------------


class Count(Message):
    """A number that goes round."""

    value: int


@dataclass(frozen=True)
class PassOn(Reactive):
    """A token that goes round a ring; each node keeps what it saw."""

    rounds: int
    messages = (Count,)

    async def start(self, node: Node) -> list[int]:
        return []

    async def drive(self, node: Node, state: list[int]) -> None:
        if node.id == 0:
            await node.send(1, Count(1))
        while len(state) < self.rounds:
            await node.sleep(0.01)
        node.model.fill_(float(sum(state)))

    @on(Count)
    async def count(self, node: Node, state: list[int], source: int, message: Count) -> None:
        assert source == (node.id - 1) % node.n
        state.append(message.value)
        await node.send((node.id + 1) % node.n, Count(message.value + 1))


def test_a_reactive_protocol() -> None:
    result = simulate(plans(4, "ring", PassOn(3), rounds=1))
    # node i sees i, i + 4, i + 8; node 0 is the last of each turn
    sums = [4 + 8 + 12, 1 + 5 + 9, 2 + 6 + 10, 3 + 7 + 11]
    assert models(result)[:, 0].tolist() == sums


@dataclass(frozen=True)
class BadHandler(PassOn):
    """As PassOn, but the handler fails on a number."""

    @on(Count)
    async def count(self, node: Node, state: list[int], source: int, message: Count) -> None:
        if message.value == 6:
            raise ValueError("six")
        await PassOn.count(self, node, state, source, message)


def test_a_handler_that_fails_fails_the_run_by_name() -> None:
    with pytest.raises(RunError, match=r"node 2 failed: ValueError\('six'\)"):
        simulate(plans(4, "ring", BadHandler(3), rounds=1))


# -- other details ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class TwoReceivers(Protocol):
    """Two tasks of node 1 wait for the next message at once; node 0 sends two, a second apart."""

    got: list[tuple[str, float]] = field(default_factory=list, init=False)

    async def run(self, node: Node) -> None:
        if node.id == 0:
            for _ in range(2):
                await node.sleep(1)
                await node.send(1, Weights(node.model))
            return

        async def receive(name: str) -> None:
            delivery = await node.recv(Weights, 10)
            assert delivery is not None
            self.got.append((name, node.clock.now_s))

        async with node.tasks() as tasks:
            await asyncio.gather(tasks.start(receive("a")), tasks.start(receive("b")))


def test_each_of_two_receivers_gets_a_message_of_its_own() -> None:
    protocol = TwoReceivers()
    simulate(plans(2, "line", protocol, rounds=1, link=IDEAL))
    assert [time_s for _, time_s in protocol.got] == [1.0, 2.0]
    assert {name for name, _ in protocol.got} == {"a", "b"}
