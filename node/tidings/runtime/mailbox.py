"""Where messages wait until the protocol asks for them. Pure: no clock, no loop."""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import Literal

from tidings.api.message import Delivery, Message

Verdict = Literal["kept", "late", "overflow"]


@dataclass
class _Box:
    """The messages of one type."""

    #: by order of arrival
    arrivals: OrderedDict[int, Delivery[Message]] = field(default_factory=OrderedDict)
    #: (round, step) -> source -> arrival numbers, for gathers
    rounds: dict[tuple[int, int], dict[int, list[int]]] = field(default_factory=dict)
    #: how many wait, by source
    waiting: Counter[int] = field(default_factory=Counter)
    #: the last round and step that was gathered
    closed: tuple[int, int] = (-1, 0)


class Mailbox:
    """Messages by (type, round, step, source), bounded per (type, source)."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._boxes: dict[type[Message], _Box] = {}
        self._arrived = 0
        #: what was not kept, by reason: late, overflow, duplicate
        self.dropped: Counter[str] = Counter()

    def put(
        self, source: int, round_: int, message: Message, step: int = 0, digest: str = ""
    ) -> Verdict:
        """File an arrival; "late" and "overflow" ones are counted and dropped."""
        box = self._boxes.setdefault(type(message), _Box())
        if (round_, step) <= box.closed:
            self.dropped["late"] += 1
            return "late"
        if box.waiting[source] >= self._limit:
            self.dropped["overflow"] += 1
            return "overflow"
        self._arrived += 1
        box.arrivals[self._arrived] = Delivery(source, round_, message, step, digest)
        box.rounds.setdefault((round_, step), {}).setdefault(source, []).append(self._arrived)
        box.waiting[source] += 1
        return "kept"

    def heard(self, kind: type[Message], round_: int, step: int = 0) -> set[int]:
        """Who has sent a message of that kind, round and step that still waits here."""
        box = self._boxes.get(kind)
        return set(box.rounds.get((round_, step), ())) if box else set()

    def peek(self, kind: type[Message], round_: int, source: int, step: int = 0) -> Message:
        """The first message of a source that was heard, without taking it."""
        box = self._boxes[kind]
        return box.arrivals[box.rounds[round_, step][source][0]].message

    def take_round(
        self, kind: type[Message], round_: int, sources: set[int], step: int = 0
    ) -> dict[int, Message]:
        """The first message of each of ``sources``; closes the step of the round.

        All other messages of this and of earlier steps and rounds are dropped: second ones of the
        same source as duplicates, the rest as late.
        """
        box, now = self._boxes.setdefault(kind, _Box()), (round_, step)
        taken = {
            source: box.arrivals[numbers[0]].message
            for source, numbers in box.rounds.get(now, {}).items()
            if source in sources
        }
        for past in [then for then in box.rounds if then <= now]:
            for source, numbers in box.rounds.pop(past).items():
                wanted = past == now and source in sources
                self.dropped["duplicate" if wanted else "late"] += len(numbers) - wanted
                box.waiting[source] -= len(numbers)
                for number in numbers:
                    del box.arrivals[number]
        box.closed = max(box.closed, now)
        return taken

    def take_next(self, kind: type[Message]) -> Delivery[Message] | None:
        """The earliest arrival of a kind (of any kind, for Message itself)."""
        kinds = list(self._boxes) if kind is Message else [kind]
        waiting = [
            (next(iter(box.arrivals)), box)
            for box in (self._boxes.get(each) for each in kinds)
            if box is not None and box.arrivals
        ]
        if not waiting:
            return None
        number, box = min(waiting, key=lambda entry: entry[0])
        return self._remove(box, number)

    def _remove(self, box: _Box, number: int) -> Delivery[Message]:
        delivery = box.arrivals.pop(number)
        by_source = box.rounds[delivery.round, delivery.step]
        by_source[delivery.source].remove(number)
        if not by_source[delivery.source]:
            del by_source[delivery.source]
        if not by_source:
            del box.rounds[delivery.round, delivery.step]
        box.waiting[delivery.source] -= 1
        return delivery

    def take(self, source: int, digest: str) -> Delivery[Message] | None:
        """The first arrival from a source that has this digest."""
        for box in self._boxes.values():
            for number, delivery in box.arrivals.items():
                if (delivery.source, delivery.digest) == (source, digest):
                    return self._remove(box, number)
        return None

    def contents(self) -> list[Delivery[Message]]:
        """What waits, in order of arrival."""
        numbered = [item for box in self._boxes.values() for item in box.arrivals.items()]
        return [delivery for _, delivery in sorted(numbered, key=lambda item: item[0])]

    def closed(self) -> dict[type[Message], tuple[int, int]]:
        """The last round and step that was gathered, by type."""
        return {kind: box.closed for kind, box in self._boxes.items()}

    def close(self, kind: type[Message], round_: int, step: int) -> None:
        """Count messages up to that step of a round as late from now on."""
        box = self._boxes.setdefault(kind, _Box())
        box.closed = max(box.closed, (round_, step))

    def clear(self) -> None:
        """Forget everything: the node is dead."""
        self._boxes.clear()
