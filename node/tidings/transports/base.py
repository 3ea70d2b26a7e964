"""What carries frames between nodes. Protocols never see it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tidings.links.shape import LinkShape
from tidings.wire.frame import Buffer, ByteCount, Frame


class LagHistogram:
    """Lags by size, eight classes to the octave, so that any number of them takes no room."""

    def __init__(self) -> None:
        self._classes: Counter[int] = Counter()
        self.count = 0
        self.max_ns = 0

    def add(self, lag_ns: int) -> None:
        """Count a lag; early is counted as on time."""
        self.count += 1
        self.max_ns = max(self.max_ns, lag_ns)
        self._classes[int(8 * math.log2(max(lag_ns, 1)))] += 1

    def quantile_ns(self, q: float) -> int:
        """The lag below which a fraction ``q`` lies, to within 9 %; 0 where there is none."""
        left = q * self.count
        for index in sorted(self._classes):
            left -= self._classes[index]
            if left <= 0:
                return min(self.max_ns, round(2 ** ((index + 1) / 8)))
        return 0


@dataclass
class LinkCounters:
    """One directed link, as its sender counts it."""

    #: handed to the link
    counts: ByteCount = field(default_factory=ByteCount)
    messages: int = 0
    #: lost by the link, as asked for
    lost_messages: int = 0
    lost_bytes: int = 0
    #: lost by faults, by event: (messages, bytes)
    faulted: dict[str, tuple[int, int]] = field(default_factory=dict)
    #: further copies that faults made; no part of ``counts`` and ``messages``
    duplicated_messages: int = 0
    duplicated_bytes: int = 0
    #: accepted, and neither arrived nor lost; None where that cannot be known
    in_flight_messages: int | None = None
    in_flight_bytes: int = 0
    #: came due while there was no connection
    undeliverable_messages: int = 0
    undeliverable_bytes: int = 0
    reconnects: int = 0
    blocked_ns: int = 0
    #: how much later than the model each chunk left, wall time
    lag: LagHistogram = field(default_factory=LagHistogram)

    @property
    def arriving_messages(self) -> int:
        """Those that have arrived, or will, once all that was accepted has been written or lost."""
        faulted = sum(messages for messages, _ in self.faulted.values())
        lost = self.lost_messages + self.undeliverable_messages + faulted
        return self.messages + self.duplicated_messages - lost

    def accept(self, frame: Frame) -> None:
        """Count a frame that was handed over."""
        self.counts.add(frame.counts)
        self.messages += 1

    def lose(self, frame: Frame, event: str) -> None:
        """Count a frame that was handed over and then lost: by the link ("") or by a fault."""
        if not event:
            self.lost_messages += 1
            self.lost_bytes += frame.size_bytes
            return
        messages, size_bytes = self.faulted.get(event, (0, 0))
        self.faulted[event] = (messages + 1, size_bytes + frame.size_bytes)

    def duplicate(self, frame: Frame) -> None:
        """Count a copy."""
        self.duplicated_messages += 1
        self.duplicated_bytes += frame.size_bytes

    def reset(self) -> None:
        """Start again from zero: what came before was measuring, not running."""
        self.__dict__.update(LinkCounters().__dict__)


class Transport(ABC):
    """The links of one node, seen from that node.

    ``receive(source, frame)`` is set by the node before traffic starts, and is called in the node's
    own loop, in the order in which a link's frames were sent.
    """

    receive: Callable[[int, Buffer], None]
    #: called with (peer, True) when a peer is suspected dead and (peer, False) when it is back
    suspect: Callable[[int, bool], None]
    #: outgoing links, by target
    links: dict[int, LinkCounters]

    @property
    def refused(self) -> Counter[str]:
        """What was refused before it was a frame of the node's, by reason."""
        return Counter()

    @abstractmethod
    async def send(self, target: int, frame: Frame, copy: bool = False) -> None:
        """Hand a frame to the link to ``target``; waits while the link's queue is full.

        At most once and in order. Returning says that the link took it, not that it arrived.
        ``copy``: it is a fault's, not the node's own.
        """

    @abstractmethod
    def reshape(self, target: int, shape: LinkShape) -> None:
        """The link to ``target`` is to be like that from now on."""

    @abstractmethod
    def discard(self, target: int, event: str) -> None:
        """Lose to ``event`` what the link to ``target`` has accepted and not begun to send."""

    @abstractmethod
    def reset(self, target: int) -> None:
        """Break the connection to ``target``; it comes back by itself.

        NotImplementedError where there is none to break.
        """

    @property
    @abstractmethod
    def sequences(self) -> dict[int, int]:
        """How many messages each link was handed, by target; with the seed, their fates."""

    @abstractmethod
    def go_on(self, sequences: Mapping[int, int]) -> None:
        """Go on as if that many messages had been handed to the links; before any is sent."""

    @abstractmethod
    async def close(self) -> None:
        """End cleanly: what was accepted still goes out."""

    @abstractmethod
    def abort(self) -> None:
        """End abruptly, as a crash does: nothing more goes out."""


class NetworkTransport(Transport):
    """A transport between processes: what a node process needs of it beside carrying frames."""

    @property
    @abstractmethod
    def connected_sources(self) -> set[int]:
        """The in-neighbours that have opened their link."""

    @abstractmethod
    async def listen(self, host: str) -> str:
        """Accept links from now on; returns the address that others are to dial."""

    @abstractmethod
    async def connect(self, addresses: Mapping[int, str], timeout_s: float) -> dict[int, str]:
        """Open all outgoing links at once; the ones that failed, with the reason."""

    @abstractmethod
    def redirect(self, addresses: Mapping[int, str]) -> None:
        """These peers are to be found elsewhere now: they have been started again."""

    @abstractmethod
    async def calibrate(self) -> None:
        """Measure what the real way to each target takes; it counts towards the delay asked for."""

    @abstractmethod
    def restart(self) -> None:
        """Start model and counters from zero, with the clock: the measuring is over."""

    @abstractmethod
    async def flush(self) -> None:
        """Until everything that was accepted has been written or lost."""

    async def leave(self) -> None:
        """Last of all, after the coordinator has been told: leave what all nodes share."""
        return
