"""Tasks that belong to a block of protocol code."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from tidings.runtime.turns import InTurn, Recorder, Script

R = TypeVar("R")


class TaskBlock:
    """``async with``: tasks started in the block are cancelled when it ends.

    If one of them fails, the block is cancelled and raises the task's own error.
    """

    def __init__(self, turns: Recorder | Script | None = None) -> None:
        self._group = asyncio.TaskGroup()
        self._turns = turns
        #: those that run, in the order in which they were started
        self._tasks: dict[asyncio.Task[Any], None] = {}

    def start(self, task: Coroutine[Any, Any, R]) -> Awaitable[R]:
        """Run ``task`` beside the block."""
        turns = self._turns
        if turns is None:
            return self._start(task)
        started = self._start(_in_turn(turns, turns.call(), task))
        # one that is cancelled before it has begun would be left over
        started.add_done_callback(lambda _: task.close())
        return InTurn(started, turns)

    def _start(self, task: Coroutine[Any, Any, R]) -> asyncio.Task[R]:
        started = self._group.create_task(task)
        self._tasks[started] = None
        started.add_done_callback(self._tasks.pop)
        return started

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        call = None if self._turns is None else self._turns.call()
        for task in list(self._tasks):
            task.cancel()
        try:
            await self._group.__aexit__(kind, error, trace)
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        if self._turns is not None and call is not None:
            await self._turns.reached(call, "tasks")


async def _in_turn(turns: Recorder | Script, call: int, task: Coroutine[Any, Any, R]) -> R:
    await turns.reached(call, "start")
    return await task
