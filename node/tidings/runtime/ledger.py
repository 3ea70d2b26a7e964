"""What a node counts of itself, and the records it makes of that."""

from __future__ import annotations

import bisect
import hashlib
from collections import Counter
from collections.abc import Mapping

import torch

from tidings.runtime.evaluation import sketch
from tidings.transports.base import LinkCounters
from tidings.v1 import records_pb2 as records
from tidings.wire.frame import ByteCount


class Staleness:
    """How old arrivals were, in classes that double, so that any number of them takes no room."""

    #: upper bounds of the classes, in rounds; whatever is older goes into one more
    BOUNDS = (0, 1, 2, 4, 8, 16, 32, 64)

    def __init__(self) -> None:
        self.classes = [0] * (len(self.BOUNDS) + 1)
        self.total = 0

    def add(self, rounds_behind: int) -> None:
        """Count an arrival; one from a later round than the receiver's is not stale."""
        behind = max(0, rounds_behind)
        self.classes[bisect.bisect_left(self.BOUNDS, behind)] += 1
        self.total += behind


class Ledger:
    """One node's books: bytes in and out, what it refused, how much it computed."""

    def __init__(self, node: int, links: Mapping[int, LinkCounters]) -> None:
        self._node = node
        self.links = links
        self.received = ByteCount()
        #: (bytes, messages) by source
        self.arrivals: dict[int, tuple[int, int]] = {}
        #: (bytes, messages) by source, of what was no well-formed frame
        self._nonsense: dict[int, tuple[int, int]] = {}
        #: by reason: wire errors, late, overflow, duplicate, missing, not_a_neighbor
        self.refused: Counter[str] = Counter()
        #: how many rounds behind the receiver what arrived was
        self.staleness = Staleness()
        self.gradients = 0
        self.compute_s = 0.0
        #: rounds or local steps that are complete
        self.completed = 0
        #: whether what the node had counted before it was restarted is in here
        self.taken_over = False

    def arrived(self, source: int, counts: ByteCount, rounds_behind: int) -> None:
        """Count a well-formed frame."""
        self.received.add(counts)
        if not counts.heartbeat:
            self.staleness.add(rounds_behind)
        size_bytes, messages = self.arrivals.get(source, (0, 0))
        self.arrivals[source] = (size_bytes + counts.total, messages + 1)

    def nonsense(self, source: int, size_bytes: int, reason: str) -> None:
        """Count what arrived and was no well-formed frame."""
        self.refused[reason] += 1
        before_bytes, before = self._nonsense.get(source, (0, 0))
        self._nonsense[source] = (before_bytes + size_bytes, before + 1)

    def came(self, source: int) -> int:
        """How many frames of a source have arrived, well-formed or not."""
        _, nonsense = self._nonsense.get(source, (0, 0))
        return self.arrivals.get(source, (0, 0))[1] + nonsense

    def sent(self) -> ByteCount:
        """Bytes handed to all links so far."""
        total = ByteCount()
        for link in self.links.values():
            total.add(link.counts)
        return total

    def sent_by_link(self) -> dict[int, int]:
        """Bytes handed to each link so far, by target."""
        return {target: link.counts.total for target, link in self.links.items()}

    def messages_sent(self) -> int:
        """Frames handed to all links so far."""
        return sum(link.messages for link in self.links.values())

    def with_refused(self, *others: Counter[str]) -> Counter[str]:
        """What was refused here and elsewhere, by reason; a copy, for any thread."""
        return sum((Counter(dict(each)) for each in others), Counter(dict(self.refused)))

    def row(self, time_s: float, final: bool, metrics: Mapping[str, float]) -> records.Evaluation:
        """A row of the series as of now; loss, accuracy and sketch are filled in later."""
        return records.Evaluation(
            node=self._node,
            round=self.completed,
            time_s=time_s,
            bytes=as_record(self.sent()),
            messages=self.messages_sent(),
            metrics=metrics,
            final=final,
        )

    def final(
        self, model: torch.Tensor, refused: Counter[str], counters: Mapping[str, int]
    ) -> records.Final:
        """The closing record; ``model`` is (d,) float32, ``refused`` by reason."""
        reception = records.Reception(
            node=self._node,
            bytes=as_record(self.received),
            messages=sum(messages for _, messages in self.arrivals.values()),
            refused=+refused,
            links=[self._arrival(source) for source in sorted({*self.arrivals, *self._nonsense})],
        )
        return records.Final(
            node=self._node,
            weights_sha256=weights_digest(model),
            links=[link_record(self._node, *link) for link in sorted(self.links.items())],
            reception=reception,
            compute_s=self.compute_s,
            gradients=self.gradients,
            counters=counters,
        )

    def _arrival(self, source: int) -> records.LinkArrival:
        size_bytes, messages = self.arrivals.get(source, (0, 0))
        refused_bytes, refused = self._nonsense.get(source, (0, 0))
        return records.LinkArrival(
            source=source,
            bytes=size_bytes,
            messages=messages,
            refused=records.Count(messages=refused, bytes=refused_bytes),
        )


def measure(
    row: records.Evaluation, metrics: Mapping[str, float], x: torch.Tensor, seed: int
) -> None:
    """Complete a row of the series with what was measured of the model ``x``."""
    row.metrics.update(metrics)
    row.sketch = sketch(x, seed).tobytes()


def weights_digest(x: torch.Tensor) -> bytes:
    """sha256 of a model's float32 values, little endian."""
    return hashlib.sha256(x.detach().numpy().astype("<f4").tobytes()).digest()


def as_record(counts: ByteCount) -> records.Bytes:
    """The counts as they go into the records."""
    return records.Bytes(
        payload=counts.payload,
        metadata=counts.metadata,
        header=counts.header,
        control=counts.control,
        heartbeat=counts.heartbeat,
    )


def link_record(source: int, target: int, link: LinkCounters) -> records.LinkRecord:
    """One directed link as it goes into the records."""
    lag = records.LagSummary(
        count=link.lag.count,
        p50_ns=link.lag.quantile_ns(0.5),
        p99_ns=link.lag.quantile_ns(0.99),
        max_ns=link.lag.max_ns,
    )
    return records.LinkRecord(
        source=source,
        target=target,
        bytes=as_record(link.counts),
        messages=link.messages,
        lost_messages=link.lost_messages,
        lost_bytes=link.lost_bytes,
        faulted={
            event: records.Count(messages=messages, bytes=size_bytes)
            for event, (messages, size_bytes) in link.faulted.items()
        },
        duplicated=records.Count(messages=link.duplicated_messages, bytes=link.duplicated_bytes),
        in_flight=None
        if link.in_flight_messages is None
        else records.Count(messages=link.in_flight_messages, bytes=link.in_flight_bytes),
        undeliverable_messages=link.undeliverable_messages,
        undeliverable_bytes=link.undeliverable_bytes,
        reconnects=link.reconnects,
        lag=lag,
        blocked_s=link.blocked_ns / 1e9,
    )
