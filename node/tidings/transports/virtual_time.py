"""An asyncio event loop on virtual time: it never waits, it moves its clock to the next event.

Protocol code, ``asyncio.timeout``, task groups and futures work on it unchanged. There is no I/O: a
transport for this loop schedules its deliveries with ``call_at``.

Events are ordered by (time in ns, tie, sequence): equal times run in the order in which they were
scheduled, or, with a seed, in an order drawn from it, which is how the order of simultaneous events
is explored.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import math
import random
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from tidings.errors import Deadlock
from tidings.units import NS_PER_S

R = TypeVar("R")


#: (time in ns, tie, sequence, callback)
_Event = tuple[int, int, int, asyncio.TimerHandle]


class VirtualLoop(asyncio.SelectorEventLoop):
    """The loop; ``on_deadlock`` is asked for the error to raise when nothing can ever run again."""

    def __init__(self, tie_seed: int | None = None, start_ns: int = 0) -> None:
        super().__init__()
        self._now_ns = start_ns
        self._events: list[_Event] = []
        self._sequence = 0
        self._cancelled = 0
        self._ties = random.Random(tie_seed) if tie_seed is not None else None
        #: (interval, next time, callback) of a watcher that must not keep the loop alive
        self._watch: tuple[int, int, Callable[[], None]] | None = None
        self.on_deadlock: Callable[[], Exception] = lambda: Deadlock("nothing can run")

    @property
    def now_ns(self) -> int:
        """Virtual nanoseconds; the loop was made at ``start_ns``."""
        return self._now_ns

    def time(self) -> float:
        """Virtual seconds, likewise."""
        return self._now_ns / NS_PER_S

    def at_ns(
        self,
        when_ns: int,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Run ``callback`` at a virtual time given in whole nanoseconds."""
        self._sequence += 1
        tie = self._ties.getrandbits(32) if self._ties else 0
        when_ns = max(when_ns, self._now_ns)
        handle = asyncio.TimerHandle(when_ns / NS_PER_S, callback, args, self, context)
        handle._scheduled = True  # type: ignore[attr-defined]
        heapq.heappush(self._events, (when_ns, tie, self._sequence, handle))
        return handle

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """As asyncio's, on virtual time; at infinity: never."""
        if when == math.inf:
            return asyncio.TimerHandle(when, callback, args, self, context)
        return self.at_ns(round(when * NS_PER_S), callback, *args, context=context)

    def call_later(  # type: ignore[override]
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """As asyncio's, on virtual time."""
        if delay == math.inf:
            return self.call_at(delay, callback, *args, context=context)
        when_ns = self._now_ns + round(delay * NS_PER_S)
        return self.at_ns(when_ns, callback, *args, context=context)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Most timers are deadlines that are met: sweep them out once they are the majority."""
        self._cancelled += handle._scheduled  # type: ignore[attr-defined]
        if self._cancelled > 100 and 2 * self._cancelled > len(self._events):
            self._events = [event for event in self._events if not event[3].cancelled()]
            heapq.heapify(self._events)
            self._cancelled = 0

    def _run_once(self) -> None:
        """One turn of the loop: the callbacks that are ready, or else the next event."""
        ready = self._ready  # type: ignore[attr-defined]
        if not ready:
            event = self._next_event()
            if event is None:
                raise self.on_deadlock()
            self._now_ns = event[0]
            ready.append(event[3])
            self._run_watch()
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()

    def watch(self, interval_ns: int, callback: Callable[[], None]) -> None:
        """Call ``callback`` once an interval while time goes on, but not to make it go on."""
        self._watch = (interval_ns, self._now_ns + interval_ns, callback)

    def _run_watch(self) -> None:
        if self._watch is not None and self._now_ns >= self._watch[1]:
            interval_ns, due_ns, callback = self._watch
            passed = (self._now_ns - due_ns) // interval_ns + 1
            self._watch = (interval_ns, due_ns + passed * interval_ns, callback)
            callback()

    def _next_event(self) -> _Event | None:
        while self._events:
            event = heapq.heappop(self._events)
            event[3]._scheduled = False  # type: ignore[attr-defined]
            if not event[3].cancelled():
                return event
            self._cancelled -= 1
        return None


class VirtualClock:
    """A loop's time as a node's clock."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    @property
    def now_ns(self) -> int:
        """Virtual nanoseconds."""
        return self._loop.now_ns

    @property
    def now_s(self) -> float:
        """Virtual seconds."""
        return self._loop.now_ns / NS_PER_S


def run_virtual(main: Coroutine[Any, Any, R], loop: VirtualLoop) -> R:
    """Run ``main`` to its end on ``loop``; Deadlock if it waits for what can never come."""
    asyncio.set_event_loop(None)
    task = loop.create_task(main)
    try:
        return loop.run_until_complete(task)
    finally:
        cancel_all(loop)
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def cancel_all(loop: VirtualLoop) -> None:
    """End all tasks of a loop that is not running."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
