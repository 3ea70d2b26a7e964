"""The receiving end of a node's links, whatever carries their bytes. Lives in the I/O thread."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable

from tidings.links.model import Ingress
from tidings.transports.endpoint import Endpoint

#: what may wait for the network card from one link before its stream is no longer read
BACKLOG_BYTES = 16 << 20

Frames = list[memoryview]


#: (source, frame)
Deliver = Callable[[int, memoryview], None]


class InLinks(ABC):
    """What a node's in-neighbours connect to.

    ``deliver(source, frame)`` is called with each whole frame, in the order of its link, after the
    node's network card has let it through.
    """

    def __init__(self, end: Endpoint, deliver: Deliver) -> None:
        self._identity = end.identity
        self._sources = end.sources
        self._check_length = end.check_length
        self._deliver = deliver
        self._clock = end.clock
        self._nic_bit_per_s = end.nic.ingress_bit_per_s
        self._quantum_bytes = end.quantum_bytes
        self._ingress: Ingress[tuple[int, Frames, int]]
        self._wake: asyncio.TimerHandle | None = None
        self._backlog_bytes: Counter[int] = Counter()
        self._drained = asyncio.Event()
        self._refused: Counter[str] = Counter()
        self.connected: set[int] = set()
        self.reset()

    @property
    def refused(self) -> Counter[str]:
        """What was refused here, by reason."""
        return self._refused

    @abstractmethod
    async def listen(self, host: str) -> str:
        """Accept links; the address to connect to."""

    @abstractmethod
    async def close(self, grace_s: float = 0.2) -> None:
        """Accept nothing more; links that are still open get that long to end."""

    def reset(self) -> None:
        """Forget the past of the network card: time starts again at zero."""
        self._ingress = Ingress(self._nic_bit_per_s, self._quantum_bytes)

    def _refusal(self, run: str, digest: bytes, source: int) -> str | None:
        """Why a peer is not let in, or None."""
        refusal = self._identity.refusal(run, digest)
        if refusal is None and source not in self._sources:
            refusal = f"node {source} is not an in-neighbour of {self._identity.node}"
        return refusal

    # -- the network card ----------------------------------------------------------------------

    def _arrive(self, source: int, size_bytes: int, frames: Frames) -> None:
        """Queue a chunk, and the frames that it completes, for the card."""
        self._ingress.arrive(self._clock.now_ns, source, size_bytes, (source, frames, size_bytes))
        self._backlog_bytes[source] += size_bytes
        self._advance()

    async def _room(self, source: int) -> None:
        """Until not too much of this link waits for the card."""
        while self._backlog_bytes[source] > BACKLOG_BYTES:
            self._drained.clear()
            await self._drained.wait()

    def _advance(self) -> None:
        loop = asyncio.get_running_loop()
        for (source, frames, size_bytes), done_ns in self._ingress.advance(self._clock.now_ns):
            loop.call_at(self._clock.loop_time(done_ns), self._through, source, frames, size_bytes)
        if self._wake is not None:
            self._wake.cancel()
        next_ns = self._ingress.next_ns()
        if next_ns is not None:
            self._wake = loop.call_at(self._clock.loop_time(next_ns), self._advance)

    def _through(self, source: int, frames: Frames, size_bytes: int) -> None:
        for frame in frames:
            self._deliver(source, frame)
        self._backlog_bytes[source] -= size_bytes
        self._drained.set()
