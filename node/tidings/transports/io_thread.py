"""A thread with its own event loop for everything that touches the network.

gRPC wants one loop per process, and the pacer wants one that training does not hold up.
"""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from tidings.units import NS_PER_S

R = TypeVar("R")

#: how long a thread that computes in Python may keep the interpreter from the pacer
SWITCH_INTERVAL_S = 0.0005


class WallClock:
    """Emulated time: wall time since :meth:`restart`, divided by the time scale."""

    def __init__(self, time_scale: float = 1.0) -> None:
        self.time_scale = time_scale
        self._zero_ns = time.monotonic_ns()

    def restart(self, at_s: float = 0.0) -> None:
        """It is that much now, emulated seconds."""
        self._zero_ns = time.monotonic_ns() - round(at_s * self.time_scale * NS_PER_S)

    @property
    def now_ns(self) -> int:
        """Emulated nanoseconds."""
        elapsed_ns = time.monotonic_ns() - self._zero_ns
        return elapsed_ns if self.time_scale == 1.0 else round(elapsed_ns / self.time_scale)

    @property
    def now_s(self) -> float:
        """Emulated seconds."""
        return self.now_ns / NS_PER_S

    def loop_time(self, emulated_ns: int) -> float:
        """The time on an event loop's clock at which the emulated clock shows that."""
        return (self._zero_ns + emulated_ns * self.time_scale) / NS_PER_S


class IoThread:
    """The thread; work is handed to it from others, and back by ``call_soon_threadsafe``."""

    def __init__(self) -> None:
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        # epoll rounds waits up to whole milliseconds, select does not
        self.loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
        self._thread = threading.Thread(target=self._run, name="tidings-io", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def post(self, callback: Callable[..., object], *args: Any) -> None:
        """Call ``callback`` there, soon; never, once the thread has ended."""
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(callback, *args)

    def submit(self, work: Coroutine[Any, Any, R]) -> Future[R]:
        """Run a coroutine there."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    async def run(self, work: Coroutine[Any, Any, R]) -> R:
        """Run a coroutine there and wait for it here, in another loop."""
        return await asyncio.wrap_future(self.submit(work))

    def stop(self) -> None:
        """Cancel what still runs there and end the thread."""
        if self._thread.is_alive():
            self.submit(self._cancel_all()).result(timeout=5)
            self.post(self.loop.stop)
            self._thread.join(timeout=5)
        if not self.loop.is_running():
            self.loop.close()

    async def _cancel_all(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
