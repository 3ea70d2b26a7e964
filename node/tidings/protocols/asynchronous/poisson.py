"""The clock of continuous-time protocols."""

from __future__ import annotations

import math
from collections.abc import Callable

from tidings.api import Node


class PoissonClock:
    """The points of a Poisson process with ``rate_hz`` events per emulated second.

    Points are fixed in advance by the node's random stream for ``purpose``: a node that comes late
    to one (because it was busy) catches up, so the rate is kept on average.
    """

    def __init__(self, node: Node, purpose: str, rate_hz: float) -> None:
        self._node = node
        self._rng = node.rng(purpose)
        self._mean_s = 1 / rate_hz
        self._next_s = node.clock.now_s

    async def tick(self) -> None:
        """Wait for the next point."""
        self._next_s += self._rng.exponential(self._mean_s)
        await self._node.sleep(max(0.0, self._next_s - self._node.clock.now_s))


class ChangingPoissonClock:
    """The points of a Poisson process whose rate changes with the graph.

    ``rate_hz(k)`` is the rate, in events per emulated second, from ``k * unit_s`` to
    ``(k + 1) * unit_s``; it may be 0, and is asked for when that span begins. A node that comes
    late catches up, as with :class:`PoissonClock`.
    """

    def __init__(
        self, node: Node, purpose: str, rate_hz: Callable[[int], float], unit_s: float
    ) -> None:
        self._node = node
        self._rng = node.rng(purpose)
        self._rate_hz = rate_hz
        self._unit_s = unit_s
        self._at_s = node.clock.now_s
        self._span = math.floor(self._at_s / unit_s)

    async def tick(self) -> None:
        """Wait for the next point."""
        events = float(self._rng.exponential())
        while True:
            rate_hz, end_s = self._rate_hz(self._span), (self._span + 1) * self._unit_s
            within = rate_hz * (end_s - self._at_s)
            if events < within:
                self._at_s += events / rate_hz
                await self._wait()
                return
            events -= within
            self._at_s, self._span = end_s, self._span + 1
            await self._wait()

    async def _wait(self) -> None:
        await self._node.sleep(max(0.0, self._at_s - self._node.clock.now_s))
