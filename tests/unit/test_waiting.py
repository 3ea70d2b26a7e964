"""Waits: who is waited for, until when, and what is said of them when all is stuck."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

import pytest
from support.virtual import now_s, run

from tidings.api import Message
from tidings.runtime.waiting import Waiting

pytestmark = pytest.mark.unit

R = TypeVar("R")


class A(Message):
    """Awaited."""


class B(Message):
    """Not awaited."""


def at(time_s: float, callback: Any, *args: Any) -> None:
    asyncio.get_running_loop().call_at(time_s, callback, *args)


async def until_round(waiting: Waiting, pending: set[int], **changes: Any) -> float:
    """Wait for round 3; the time at which that was over."""
    arguments: dict[str, Any] = {"need": len(pending), "timeout_s": 10.0, "suspected": None}
    await waiting.round(A, 3, pending, now_s=now_s(), **(arguments | changes))
    return now_s()


def test_a_round_is_over_when_the_last_one_was_heard() -> None:
    async def main() -> float:
        waiting = Waiting()
        for time_s, kind, round_, source in [
            (1, A, 3, 1),
            (2, B, 3, 2),  # another kind
            (3, A, 4, 2),  # another round
            (4, A, 3, 1),  # the same one again
            (5, A, 3, 7),  # someone else
            (6, A, 3, 2),
        ]:
            at(time_s, waiting.arrived, kind, round_, source)
        return await until_round(waiting, {1, 2})

    assert run(main()) == 6


def test_a_round_is_over_at_the_deadline() -> None:
    assert run(until_round(Waiting(), {1, 2})) == 10


def test_a_quorum_is_enough() -> None:
    async def main() -> float:
        waiting = Waiting()
        for source in (1, 2, 3):
            at(source, waiting.arrived, A, 3, source)
        return await until_round(waiting, {1, 2, 3}, need=2)

    assert run(main()) == 2


def test_nothing_needed_is_no_wait() -> None:
    assert run(until_round(Waiting(), set())) == 0
    assert run(until_round(Waiting(), {1, 2}, need=0)) == 0
    assert run(until_round(Waiting(), {1, 2}, suspected={1, 2, 5})) == 0


@pytest.mark.parametrize(("live", "over_s"), [(True, 4), (False, 10)])
def test_only_waits_for_the_living_give_up_suspects(live: bool, over_s: float) -> None:
    async def main() -> float:
        waiting = Waiting()
        suspects: set[int] = set()
        at(2, suspects.add, 1)
        at(2, waiting.suspected, suspects)
        at(3, waiting.suspected, suspects)  # said again
        at(4, waiting.arrived, A, 3, 2)
        return await until_round(waiting, {1, 2}, suspected=suspects if live else None)

    assert run(main()) == over_s


def test_a_suspect_that_is_heard_after_all_does_not_count_for_another() -> None:
    async def main() -> float:
        waiting = Waiting()
        at(1, waiting.suspected, {1})
        at(2, waiting.arrived, A, 3, 1)
        at(5, waiting.arrived, A, 3, 2)
        return await until_round(waiting, {1, 2}, suspected=set())

    assert run(main()) == 5


def test_the_next_message_of_a_kind_or_of_any() -> None:
    async def main() -> list[object]:
        waiting = Waiting()
        at(1, waiting.arrived, B, 0, 1)
        at(2, waiting.arrived, A, 9, 1)
        first = asyncio.create_task(waiting.next(Message, 10.0, now_s()))
        return [await waiting.next(A, 10.0, now_s()), now_s(), first.done(), await first]

    assert run(main()) == [True, 2.0, True, True]


def test_the_next_message_does_not_come() -> None:
    async def main() -> tuple[bool, float]:
        return await Waiting().next(A, 4.0, now_s()), now_s()

    assert run(main()) == (False, 4.0)


def test_waits_are_described_while_they_last() -> None:
    async def main() -> list[list[str]]:
        waiting = Waiting()
        seen = [waiting.describe()]
        at(1, waiting.arrived, A, 3, 1)
        at(2, lambda: seen.append(waiting.describe()))
        await until_round(waiting, {1, 5, 2})
        seen.append(waiting.describe())
        with waiting.doing("sleep", now_s(), timed=True):
            seen.append(waiting.describe())
        return [*seen, waiting.describe()]

    assert run(main()) == [
        [],
        ["A of round 3 from 2, 5 since 0.000 s"],
        [],
        ["sleep since 10.000 s"],
        [],
    ]


def test_stuck_is_waiting_without_any_timer() -> None:
    async def main() -> list[bool]:
        waiting = Waiting()
        seen = [waiting.stuck]
        task = asyncio.create_task(waiting.next(A, None, now_s()))
        await asyncio.sleep(1)
        seen.append(waiting.stuck)
        with waiting.doing("sleep", now_s(), timed=True):
            seen.append(waiting.stuck)
        waiting.arrived(A, 0, 1)
        await task
        return [*seen, waiting.stuck]

    assert run(main()) == [False, True, False, False]


def test_a_node_that_works_beside_a_wait_is_not_stuck() -> None:
    """As a reactive protocol does: its handlers wait for messages while it computes."""

    async def main() -> list[bool]:
        waiting = Waiting()
        with waiting.doing("the next Message", now_s()):
            with waiting.working():
                computing = waiting.stuck
            return [computing, waiting.stuck]

    assert run(main()) == [False, True]


def test_a_cancelled_wait_is_forgotten() -> None:
    async def main() -> list[str]:
        waiting = Waiting()
        task = asyncio.create_task(until_round(waiting, {1}))
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.wait([task])
        waiting.arrived(A, 3, 1)
        return waiting.describe()

    assert run(main()) == []
