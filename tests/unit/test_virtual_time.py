"""The virtual loop: asyncio works on it unchanged, only events move time, ties have an order."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from support.virtual import now_s, run

from tidings.errors import Deadlock
from tidings.transports.virtual_time import VirtualLoop

pytestmark = pytest.mark.unit

R = TypeVar("R")


def tie_order(tie_seed: int | None, schedule: Callable[[VirtualLoop, list[int]], None]) -> str:
    """The order in which callbacks of one moment ran."""
    order: list[int] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        schedule(loop, order)
        await asyncio.sleep(10)

    run(main(), VirtualLoop(tie_seed))
    return "".join(map(str, order))


def eight_at_once(loop: VirtualLoop, order: list[int]) -> None:
    for number in range(8):
        loop.call_at(1.0, order.append, number)


def test_equal_times_run_in_the_order_of_scheduling() -> None:
    assert tie_order(None, eight_at_once) == "01234567"


def test_equal_times_by_different_ways_of_asking() -> None:
    def schedule(loop: VirtualLoop, order: list[int]) -> None:
        loop.call_at(1.0, order.append, 0)
        loop.call_later(1.0, order.append, 1)
        loop.at_ns(10**9, order.append, 2)
        loop.at_ns(10**9 - 1, order.append, 3)

    assert tie_order(None, schedule) == "3012"


def test_a_tie_seed_draws_an_order_of_its_own() -> None:
    orders = [tie_order(seed, eight_at_once) for seed in range(20)]
    assert orders == [tie_order(seed, eight_at_once) for seed in range(20)]
    assert len(set(orders)) == 20  # of 40,320
    assert {order[0] for order in orders} >= set("0123")


def test_a_tie_seed_leaves_different_times_alone() -> None:
    def schedule(loop: VirtualLoop, order: list[int]) -> None:
        for number in range(8):
            loop.at_ns(10**9 + number, order.append, number)

    assert {tie_order(seed, schedule) for seed in range(10)} == {"01234567"}


def test_time_stands_still_while_there_is_work() -> None:
    async def main() -> float:
        for _ in range(1000):
            await asyncio.sleep(0)
        return now_s()

    assert run(main()) == 0.0


def test_sleeps_are_exact_far_out() -> None:
    async def main() -> list[float]:
        await asyncio.sleep(1e5)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        at_ns = []
        for _ in range(1000):
            await asyncio.sleep(1e-3)
            at_ns.append(loop.now_ns)
        return at_ns

    assert run(main()) == [10**14 + 10**6 * (k + 1) for k in range(1000)]


def test_a_deadline_far_out_is_exact_to_a_nanosecond() -> None:
    async def main() -> int:
        await asyncio.sleep(1e5)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.25):
                await asyncio.Event().wait()
        return loop.now_ns

    assert abs(run(main()) - (10**14 + 250_000_000)) <= 1


def test_timeouts_groups_events_and_queues() -> None:
    async def main() -> list[object]:
        seen: list[object] = []
        queue: asyncio.Queue[int] = asyncio.Queue(maxsize=1)
        done = asyncio.Event()

        async def produce() -> None:
            for number in range(3):
                await asyncio.sleep(1)
                await queue.put(number)
            done.set()

        async def consume() -> None:
            while not (done.is_set() and queue.empty()):
                seen.append((await queue.get(), now_s()))

        async with asyncio.TaskGroup() as group:
            group.create_task(produce())
            group.create_task(consume())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2):
                await asyncio.sleep(5)
        seen.append(now_s())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 0.5)
        seen.append(now_s())
        finished, pending = await asyncio.wait(
            [asyncio.create_task(asyncio.sleep(s)) for s in (1, 9)], timeout=3
        )
        seen += [len(finished), len(pending), now_s()]
        return seen

    assert run(main()) == [(0, 1.0), (1, 2.0), (2, 3.0), 5.0, 5.5, 1, 1, 8.5]


def test_a_failing_task_cancels_its_group() -> None:
    async def main() -> float:
        async def fail() -> None:
            await asyncio.sleep(2)
            raise ZeroDivisionError

        async def group() -> None:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(fail())
                tasks.create_task(asyncio.sleep(100))

        with pytest.raises(ExceptionGroup):
            await group()
        return now_s()

    assert run(main()) == 2.0


def test_a_cancelled_timer_does_not_move_time() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        loop.call_later(50, lambda: None).cancel()
        async with asyncio.timeout(100):
            await asyncio.sleep(1)
        await asyncio.sleep(1)
        return now_s()

    assert run(main()) == 2.0


def test_cancelled_timers_do_not_pile_up() -> None:
    loop = VirtualLoop()

    async def main() -> None:
        for _ in range(5000):
            async with asyncio.timeout(1000):
                await asyncio.sleep(0.001)
        assert len(loop._events) < 300

    run(main(), loop)


def test_nothing_left_to_happen_is_a_deadlock_with_the_hooks_words() -> None:
    loop = VirtualLoop()
    loop.on_deadlock = lambda: Deadlock(f"node 3 waits, at {loop.time()} s")

    async def main() -> None:
        asyncio.get_running_loop().call_later(50, lambda: None).cancel()
        await asyncio.sleep(2)
        await asyncio.Event().wait()

    with pytest.raises(Deadlock, match=r"node 3 waits, at 2\.0 s"):
        run(main(), loop)


def test_a_deadlocked_program_is_unwound() -> None:
    unwound = []

    async def main() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            unwound.append(True)

    with pytest.raises(Deadlock):
        run(main())
    assert unwound == [True]


@pytest.mark.parametrize("wait", ["timeout", "wait_for", "sleep"])
def test_waiting_for_ever_is_a_wait_without_a_timer(wait: str) -> None:
    async def main() -> None:
        if wait == "timeout":
            async with asyncio.timeout(math.inf):
                await asyncio.Event().wait()
        elif wait == "wait_for":
            await asyncio.wait_for(asyncio.Event().wait(), math.inf)
        else:
            await asyncio.sleep(math.inf)

    with pytest.raises(Deadlock):
        run(main())


def test_a_watcher_runs_while_time_goes_on_and_does_not_make_it_go_on() -> None:
    seen: list[float] = []

    async def main(loop: VirtualLoop) -> None:
        loop.watch(10**9, lambda: seen.append(loop.time()))
        for _ in range(7):
            await asyncio.sleep(0.5)
        await asyncio.Event().wait()

    loop = VirtualLoop()
    with pytest.raises(Deadlock):
        run(main(loop), loop)
    assert seen == [1.0, 2.0, 3.0]


def test_an_error_in_a_watcher_ends_the_run() -> None:
    def fail() -> None:
        raise ZeroDivisionError

    async def main(loop: VirtualLoop) -> None:
        loop.watch(1, fail)
        await asyncio.sleep(1)

    loop = VirtualLoop()
    with pytest.raises(ZeroDivisionError):
        run(main(loop), loop)


def test_what_still_runs_is_cancelled_at_the_end() -> None:
    ended: list[float] = []

    async def background() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            ended.append(now_s())

    async def main() -> str:
        task = asyncio.create_task(background())
        await asyncio.sleep(1)
        assert not task.done()
        return "result"

    assert run(main()) == "result"
    assert ended == [1.0]


def test_a_generator_left_in_the_middle_is_closed_before_the_loop_is() -> None:
    closed: list[bool] = []

    async def numbers() -> Any:
        try:
            for number in range(10):
                yield number
        finally:
            await asyncio.sleep(0)
            closed.append(True)

    async def main(generator: Any) -> None:
        async for number in generator:
            if number == 2:
                break

    generator = numbers()
    run(main(generator))
    assert closed == [True]


def test_the_past_is_now() -> None:
    async def main() -> list[float]:
        await asyncio.sleep(5)
        seen: list[float] = []
        loop = asyncio.get_running_loop()
        loop.call_at(1.0, lambda: seen.append(now_s()))
        loop.call_later(-3, lambda: seen.append(now_s()))
        await asyncio.sleep(1)
        return seen

    assert run(main()) == [5.0, 5.0]
