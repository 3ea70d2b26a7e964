"""The order in which a node goes on: written down in one run, repeated in another.

Between two awaits a protocol's code runs undisturbed. So all that chance decides is in which order
its calls return, with what, when exchanges and suspicions come in between, and what the clock shows
then. Each of these is a *turn*. Calls are numbered as they are made, so that a turn says which one
it ends. Between two turns the clock stands still, and so the code between them does the same again.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import wraps
from typing import Any, TypeVar, cast

from tidings.api.message import Delivery
from tidings.errors import RunError
from tidings.runtime.clocks import SkewedClock
from tidings.runtime.plan import Turn
from tidings.runtime.waiting import Waiting

R = TypeVar("R")
M = TypeVar("M", bound=Callable[..., Coroutine[Any, Any, Any]])


class _Numbered:
    """Numbers the calls of a node's protocol."""

    def __init__(self) -> None:
        self._calls = 0

    def call(self) -> int:
        """The number of a call that is made now."""
        self._calls += 1
        return self._calls


class Recorder(_Numbered):
    """Writes down the turns of one node."""

    def __init__(self, clock: SkewedClock, write: Callable[..., None]) -> None:
        super().__init__()
        self._clock = clock
        self._write = write

    async def reached(self, call: int, what: str) -> None:
        """A call returns now."""
        self.note(what, call=call)

    def note(self, what: str, **found: object) -> None:
        """A turn; ``found`` are fields of :class:`tidings.runtime.plan.Turn`."""
        self._clock.hold()
        self._write("turn", what=what, now_ns=self._clock.now_ns, **found)


class Script(_Numbered):
    """Gives each call its turn, as it was recorded; a call that had none then waits for ever."""

    def __init__(
        self, node: int, turns: Sequence[Turn], clock: SkewedClock, waiting: Waiting
    ) -> None:
        super().__init__()
        self._node = node
        self._left = deque(turns)
        self._total = len(turns)
        self._clock = clock
        self._waiting = waiting
        #: by the number of the call; None: for what comes from outside
        self._asleep: dict[int | None, asyncio.Future[None]] = {}
        frames = Counter(turn.digest for turn in turns if turn.digest)
        #: the digests of what was taken more than once, and the messages when they have come
        self.copied = {digest for digest, times in frames.items() if times > 1}
        self.copies: dict[str, Delivery[Any]] = {}
        #: set when all turns were taken
        self.finished = asyncio.Event()
        if not turns:
            self.finished.set()

    async def reached(self, call: int, what: str) -> None:
        """Until it is the turn of this call to return."""
        self.take(await self.mine(call, what))

    async def mine(self, call: int | None, *what: str) -> Turn:
        """The next turn, as soon as it belongs to this call (None: to none), without taking it.

        RunError where it is none of ``what``: this is another run.
        """
        while not self._left or self._left[0].call != call:
            self._asleep[call] = asyncio.get_running_loop().create_future()
            name = "what comes from outside" if call is None else f"the end of its call {call}"
            with self._waiting.doing(f"{name}, before {self._next}", self._clock.now_s):
                await self._asleep[call]
        turn = self._left[0]
        if turn.what not in what:
            raise RunError(
                f"node {self._node} does {what[0]} where it did {turn.what}, in {self._next}: "
                "this is not the run that was recorded"
            )
        return turn

    def take(self, turn: Turn) -> None:
        """It is over; what follows until the next await belongs to it."""
        assert self._left[0] is turn
        self._left.popleft()
        self._clock.pin(turn.now_ns)
        if not self._left:
            self.finished.set()
            return
        waiting = self._asleep.pop(self._left[0].call, None)
        # it may have been cancelled
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    @property
    def _next(self) -> str:
        if not self._left:
            return "the end"
        turn = self._left[0]
        return f"turn {self._total - len(self._left) + 1} of {self._total} ('{turn.what}')"


async def until_played(scripts: Sequence[Script]) -> None:
    """Until all nodes have done what they had done, however that had ended."""
    for script in scripts:
        await script.finished.wait()


def in_turn(method: M) -> M:
    """For a method of the node's API: it returns when it is its turn."""

    @wraps(method)
    async def turned(self: Any, *args: Any, **kwargs: Any) -> Any:
        turns: Recorder | Script | None = self.turns
        if turns is None:
            return await method(self, *args, **kwargs)
        call = turns.call()
        result = await method(self, *args, **kwargs)
        await turns.reached(call, method.__name__)
        return result

    return cast(M, turned)


class InTurn(Awaitable[R]):
    """A task's result, as an awaitable of the API."""

    def __init__(self, task: asyncio.Task[R], turns: Recorder | Script) -> None:
        self._task = task
        self._turns = turns

    def __await__(self) -> Any:
        return self._wait().__await__()

    async def _wait(self) -> R:
        call = self._turns.call()
        result = await self._task
        await self._turns.reached(call, "task")
        return result
