"""A node's links as arithmetic on integer nanoseconds. No clock: time is passed in.

A chunk passes three stages: the sender's network card, the link, the receiver's network card. Each
is a line of a certain rate that serves one chunk at a time; there is no initial credit. Chunks of
several links that share a card are served by deficit round robin (Shreedhar & Varghese, SIGCOMM
1995), so that a long message to one neighbour does not hold up a short one to another.

The simulator and the pacer drive the same objects: ``offer`` when a message is handed over,
``advance`` to settle everything that has begun by now, ``next_ns`` to know when to come back. All
times that come out are the model's, however late ``advance`` was called, so lateness in calling
never accumulates.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from tidings.links.shape import Dice, LinkShape, serialization_ns

T = TypeVar("T")


class Served(NamedTuple, Generic[T]):
    """A chunk that a line has begun to serve."""

    lane: int
    size_bytes: int
    item: T
    end_ns: int


@dataclass
class _Lane(Generic[T]):
    #: (ready at, size, item)
    queue: deque[tuple[int, int, T]] = field(default_factory=deque)
    #: the stage behind is busy until then
    busy_ns: int = 0
    deficit_bytes: int = 0
    #: whether it has had its quantum of this turn
    granted: bool = False


class FairLine(Generic[T]):
    """A line of a finite rate, shared by lanes in deficit round robin."""

    def __init__(self, rate_bit_per_s: float, quantum_bytes: int) -> None:
        self.rate_bit_per_s = rate_bit_per_s
        self._quantum_bytes = quantum_bytes
        self._lanes: dict[int, _Lane[T]] = {}
        #: lanes with something queued, in the order of their turns
        self._turns: deque[int] = deque()
        self._free_ns = 0

    def push(self, now_ns: int, lane: int, size_bytes: int, item: T) -> None:
        """Queue a chunk behind the lane's others; all that begins by then must be served before."""
        self._free_ns = max(self._free_ns, now_ns)
        line = self._lanes.setdefault(lane, _Lane())
        if not line.queue:
            self._turns.append(lane)
        line.queue.append((now_ns, size_bytes, item))

    def hold(self, lane: int, until_ns: int) -> None:
        """The stage behind the lane is busy until then, so its next chunk need not hurry."""
        self._lanes[lane].busy_ns = until_ns

    def queued(self, lane: int) -> Iterator[T]:
        """What waits in a lane, in order."""
        line = self._lanes.get(lane)
        yield from (item for _, _, item in line.queue) if line else ()

    def next_ns(self) -> int | None:
        """When the next chunk can begin; None while nothing is queued."""
        if not self._turns:
            return None
        return max(self._free_ns, min(self._ready_ns(lane) for lane in self._turns))

    def serve(self, now_ns: int) -> Served[T] | None:
        """Begin the next chunk that the model begins at or before ``now_ns``."""
        begin_ns = self.next_ns()
        if begin_ns is None or begin_ns > now_ns:
            return None
        lane = self._take_turn(begin_ns)
        line = self._lanes[lane]
        _, size_bytes, item = line.queue.popleft()
        line.deficit_bytes -= size_bytes
        if not line.queue:
            line.deficit_bytes, line.granted = 0, False
            self._turns.popleft()
        self._free_ns = begin_ns + serialization_ns(size_bytes, self.rate_bit_per_s)
        return Served(lane, size_bytes, item, self._free_ns)

    def _ready_ns(self, lane: int) -> int:
        line = self._lanes[lane]
        arrived_ns, size_bytes, _ = line.queue[0]
        # in time for the stage behind to be free, even if every other lane is served first
        ahead_ns = len(self._turns) * serialization_ns(size_bytes, self.rate_bit_per_s)
        return max(arrived_ns, line.busy_ns - ahead_ns)

    def _take_turn(self, begin_ns: int) -> int:
        """The lane whose deficit pays for its next chunk; each turn brings it one quantum."""
        while True:
            lane = self._turns[0]
            line = self._lanes[lane]
            if self._ready_ns(lane) <= begin_ns:
                size_bytes = line.queue[0][1]
                if not line.granted and line.deficit_bytes < size_bytes:
                    line.deficit_bytes += self._quantum_bytes
                    line.granted = True
                if line.deficit_bytes >= size_bytes:
                    return lane
            line.granted = False
            self._turns.rotate(-1)


@dataclass(slots=True)
class Passage(Generic[T]):
    """A message on its way: all its chunks share its fate."""

    item: T
    jitter_ns: int = 0
    #: What loses it: the link itself (""), a fault (its event), nothing (None). A fault may still
    #: strike while the message waits.
    lost_by: str | None = None


class Departure(NamedTuple, Generic[T]):
    """A chunk whose way over the link is settled."""

    target: int
    message: Passage[T]
    #: position of the chunk in its message
    number: int
    #: whether it is the message's last chunk
    last: bool
    size_bytes: int
    #: when it has left the sender's queue
    end_ns: int
    #: when it reaches the other end
    due_ns: int

    @property
    def item(self) -> T:
        """The message itself."""
        return self.message.item

    @property
    def lost(self) -> bool:
        """Whether the whole message is lost on the way."""
        return self.message.lost_by is not None


class _Leaving(NamedTuple):
    """A chunk that occupies its link until a known time."""

    end_ns: int
    size_bytes: int
    message: Passage[Any]
    number: int


@dataclass
class _Link:
    shape: LinkShape
    dice: Dice
    beat_dice: Dice
    sequence: int = 0
    #: heartbeats have fates of their own, so that they change no message's
    beats: int = 0
    busy_ns: int = 0
    #: FIFO: no chunk arrives before the one ahead of it, whatever the jitter
    last_due_ns: int = 0
    #: bytes whose departure time is not known yet
    waiting_bytes: int = 0
    #: those whose departure is known
    leaving: deque[_Leaving] = field(default_factory=deque)


class Egress(Generic[T]):
    """One node's outgoing side: its network card and its links."""

    def __init__(
        self,
        source: int,
        seed: int,
        links: Mapping[int, LinkShape],
        nic_bit_per_s: float = math.inf,
        quantum_bytes: int = 1 << 20,
    ) -> None:
        self._links = {
            target: _Link(
                shape, Dice(seed, source, target), Dice(seed, source, target, "heartbeat")
            )
            for target, shape in links.items()
        }
        self._nic: FairLine[tuple[Passage[T], int, bool]] | None = None
        if math.isfinite(nic_bit_per_s):
            self._nic = FairLine(nic_bit_per_s, quantum_bytes)
        self._settled: deque[Departure[T]] = deque()

    def shape(self, target: int) -> LinkShape:
        """The link as it is asked for now."""
        return self._links[target].shape

    @property
    def sequences(self) -> dict[int, int]:
        """How many messages each link was handed, by target."""
        return {target: link.sequence for target, link in self._links.items()}

    def go_on(self, sequences: Mapping[int, int]) -> None:
        """Number messages as if each link had been handed that many."""
        for target, sequence in sequences.items():
            self._links[target].sequence = sequence

    def reshape(self, target: int, shape: LinkShape) -> None:
        """Another shape from now on; what is settled already stays as it is."""
        self._links[target].shape = shape

    def discard(self, now_ns: int, target: int, event: str) -> None:
        """Lose to ``event`` the messages of which nothing has left yet."""
        self._settle(now_ns)
        link = self._links[target]
        pending = [(leaving.message, leaving.number) for leaving in self._pending(link, now_ns)]
        if self._nic is not None:
            pending += [(message, number) for message, number, _ in self._nic.queued(target)]
        for message, number in pending:
            if number == 0 and message.lost_by is None:
                message.lost_by = event

    def room_ns(self, now_ns: int, target: int, size_bytes: int) -> int | None:
        """When a message of that size may be offered: ``now_ns``, later, or None for unknown.

        A message fits if the queue has room for it or is empty.
        """
        link = self._links[target]
        pending = self._pending(link, now_ns)
        queued = link.waiting_bytes + sum(leaving.size_bytes for leaving in pending)
        if queued == 0 or queued + size_bytes <= link.shape.queue_bytes:
            return now_ns
        for leaving in pending:
            queued -= leaving.size_bytes
            if queued == 0 or queued + size_bytes <= link.shape.queue_bytes:
                return leaving.end_ns
        return None

    def _pending(self, link: _Link, now_ns: int) -> deque[_Leaving]:
        """The chunks that have not left yet though it is known when they will."""
        while link.leaving and link.leaving[0].end_ns <= now_ns:
            link.leaving.popleft()
        return link.leaving

    def offer(
        self, now_ns: int, target: int, chunk_sizes: Sequence[int], item: T, beats: bool = False
    ) -> None:
        """Queue a message for ``target``; ``beats``: it is a heartbeat."""
        self._settle(now_ns)
        link = self._links[target]
        if beats:
            draw = link.beat_dice.draw(link.shape, link.beats)
            link.beats += 1
        else:
            draw = link.dice.draw(link.shape, link.sequence)
            link.sequence += 1
        message = Passage(item, draw.jitter_ns, "" if draw.lost else None)
        for index, size in enumerate(chunk_sizes):
            last = index == len(chunk_sizes) - 1
            if self._nic is None:
                self._depart(target, message, index, last, size, now_ns)
            else:
                link.waiting_bytes += size
                self._nic.push(now_ns, target, size, (message, index, last))

    def skip(self, target: int) -> None:
        """Number a message that has gone over a link without shape, past this model."""
        self._links[target].sequence += 1

    def advance(self, now_ns: int) -> Iterator[Departure[T]]:
        """Departures that became certain by ``now_ns``, in the order of their settling."""
        self._settle(now_ns)
        while self._settled:
            yield self._settled.popleft()

    def next_ns(self) -> int | None:
        """When ``advance`` will have something new; None if nothing is queued."""
        return self._nic.next_ns() if self._nic else None

    def _settle(self, now_ns: int) -> None:
        if self._nic is None:
            return
        while (served := self._nic.serve(now_ns)) is not None:
            message, index, last = served.item
            link = self._links[served.lane]
            link.waiting_bytes -= served.size_bytes
            self._depart(served.lane, message, index, last, served.size_bytes, served.end_ns)
            self._nic.hold(served.lane, link.busy_ns)

    def _depart(
        self, target: int, message: Passage[T], index: int, last: bool, size: int, ready_ns: int
    ) -> None:
        """The link's own arithmetic: wait for the line, occupy it, travel."""
        link = self._links[target]
        start_ns = max(ready_ns, link.busy_ns)
        link.busy_ns = end_ns = start_ns + serialization_ns(size, link.shape.rate_bit_per_s)
        flight_ns = max(0, link.shape.delay_ns + message.jitter_ns)
        link.last_due_ns = due_ns = max(end_ns + flight_ns, link.last_due_ns)
        link.leaving.append(_Leaving(end_ns, size, message, index))
        self._settled.append(Departure(target, message, index, last, size, end_ns, due_ns))


class Ingress(Generic[T]):
    """One node's incoming side: the network card that all links into it share."""

    def __init__(self, nic_bit_per_s: float = math.inf, quantum_bytes: int = 1 << 20) -> None:
        self._nic: FairLine[T] | None = None
        if math.isfinite(nic_bit_per_s):
            self._nic = FairLine(nic_bit_per_s, quantum_bytes)
        self._through: deque[tuple[T, int]] = deque()

    @property
    def limited(self) -> bool:
        """Whether the card limits anything; if not, chunks need not pass here at all."""
        return self._nic is not None

    def arrive(self, now_ns: int, source: int, size_bytes: int, item: T) -> None:
        """A chunk has come over the link from ``source``."""
        assert self._nic is not None
        self._settle(now_ns)
        self._nic.push(now_ns, source, size_bytes, item)

    def advance(self, now_ns: int) -> Iterator[tuple[T, int]]:
        """(item, time at which it is through) of chunks that began by ``now_ns``."""
        self._settle(now_ns)
        while self._through:
            yield self._through.popleft()

    def _settle(self, now_ns: int) -> None:
        while self._nic is not None and (served := self._nic.serve(now_ns)) is not None:
            self._through.append((served.item, served.end_ns))

    def next_ns(self) -> int | None:
        """When the next chunk can begin."""
        return self._nic.next_ns() if self._nic else None
