"""The clock of continuous-time protocols."""

from __future__ import annotations

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
