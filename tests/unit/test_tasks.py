"""Blocks of tasks: they die with their block, and the block with them."""

from __future__ import annotations

import asyncio
from typing import TypeVar

import pytest
from support.virtual import now_s, run

from tidings.errors import NodeCrashed
from tidings.runtime.tasks import TaskBlock

pytestmark = pytest.mark.unit

R = TypeVar("R")


async def after(delay_s: float, result: R) -> R:
    await asyncio.sleep(delay_s)
    return result


async def fail_after(delay_s: float, error: BaseException) -> None:
    await asyncio.sleep(delay_s)
    raise error


def test_results_can_be_awaited_beside_other_work() -> None:
    async def main() -> tuple[list[int], float]:
        async with TaskBlock() as tasks:
            slow, fast = tasks.start(after(3, 1)), tasks.start(after(2, 2))
            await asyncio.sleep(1)
            return [await slow, await fast], now_s()

    assert run(main()) == ([1, 2], 3.0)


def test_tasks_are_cancelled_when_the_block_ends() -> None:
    ended = []

    async def background() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            ended.append(now_s())

    async def main() -> float:
        async with TaskBlock() as tasks:
            tasks.start(background())
            await asyncio.sleep(1)
        return now_s()

    assert run(main()) == 1.0
    assert ended == [1.0]


@pytest.mark.parametrize("error", [ZeroDivisionError("x"), NodeCrashed("x"), KeyError("x")])
def test_a_failing_task_ends_the_block_with_its_own_error(error: BaseException) -> None:
    async def main() -> None:
        async with TaskBlock() as tasks:
            tasks.start(fail_after(1, error))
            tasks.start(after(50, None))
            await asyncio.sleep(100)

    with pytest.raises(type(error)) as caught:
        run(main())
    assert caught.value is error


def test_an_error_of_the_block_itself_comes_out_as_it_is() -> None:
    async def main() -> None:
        async with TaskBlock() as tasks:
            tasks.start(after(50, None))
            await asyncio.sleep(1)
            raise KeyError("own")

    with pytest.raises(KeyError, match="own"):
        run(main())


def test_an_awaited_task_that_fails_comes_out_once() -> None:
    async def main() -> None:
        async with TaskBlock() as tasks:
            await tasks.start(fail_after(1, KeyError("task")))

    with pytest.raises(KeyError, match="task"):
        run(main())


def test_cancelling_the_owner_cancels_the_tasks() -> None:
    ended = []

    async def background() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            ended.append(now_s())

    async def owner() -> None:
        async with TaskBlock() as tasks:
            tasks.start(background())
            await asyncio.sleep(100)

    async def main() -> bool:
        task = asyncio.create_task(owner())
        await asyncio.sleep(2)
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    assert run(main())
    assert ended == [2.0]


def test_blocks_nest() -> None:
    async def main() -> list[str]:
        seen: list[str] = []
        async with TaskBlock() as outer:
            late = outer.start(after(3, "outer"))
            async with TaskBlock() as inner:
                inner.start(after(100, "never"))
                seen.append(await inner.start(after(1, "inner")))
            seen.append(await late)
        return [*seen, str(now_s())]

    assert run(main()) == ["inner", "outer", "3.0"]
