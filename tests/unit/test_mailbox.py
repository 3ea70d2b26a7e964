"""The mailbox: by type, round and source, bounded, in order, and nothing is kept for ever."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tidings.api import Message
from tidings.runtime.mailbox import Mailbox

pytestmark = pytest.mark.unit


class A(Message):
    """A numbered message."""

    number: int


class B(Message):
    """Another kind."""

    number: int


def numbers(taken: dict[int, Message]) -> dict[int, int]:
    return {source: message.number for source, message in taken.items()}  # type: ignore[attr-defined]


# -- rounds ----------------------------------------------------------------------------------------


def test_a_round_is_taken_by_source() -> None:
    box = Mailbox(10)
    for source, number in [(2, 20), (1, 10)]:
        assert box.put(source, 0, A(number)) == "kept"
    assert box.heard(A, 0) == {1, 2}
    assert numbers(box.take_round(A, 0, {1, 2, 3})) == {1: 10, 2: 20}
    assert box.heard(A, 0) == set()
    assert box.dropped == Counter()


def test_a_message_for_a_round_that_was_gathered_is_late() -> None:
    box = Mailbox(10)
    box.take_round(A, 3, set())
    assert box.put(1, 3, A(0)) == "late"
    assert box.put(1, 2, A(0)) == "late"
    assert box.put(1, 4, A(0)) == "kept"
    assert box.put(1, 3, B(0)) == "kept"  # another kind has rounds of its own
    assert box.dropped == Counter({"late": 2})


def test_taking_a_round_drops_the_rounds_before_it() -> None:
    box = Mailbox(10)
    for round_ in (0, 1, 2, 3):
        box.put(1, round_, A(round_))
    assert numbers(box.take_round(A, 2, {1})) == {1: 2}
    assert box.dropped == Counter({"late": 2})
    assert numbers(box.take_round(A, 3, {1})) == {1: 3}


def test_the_first_of_two_messages_of_a_source_counts() -> None:
    box = Mailbox(10)
    for number in (1, 2, 3):
        box.put(5, 0, A(number))
    assert numbers(box.take_round(A, 0, {5})) == {5: 1}
    assert box.dropped == Counter({"duplicate": 2})


def test_a_source_that_was_not_asked_for_is_late_once_the_round_is_taken() -> None:
    box = Mailbox(10)
    box.put(5, 0, A(1))
    assert box.take_round(A, 0, {1}) == {}
    assert box.dropped == Counter({"late": 1})


def test_a_look_does_not_take() -> None:
    box = Mailbox(10)
    box.put(5, 0, A(1))
    box.put(5, 0, A(2))
    assert box.peek(A, 0, 5) == box.take_round(A, 0, {5})[5]


# -- bounds ----------------------------------------------------------------------------------------


def test_the_limit_is_per_kind_and_source() -> None:
    box = Mailbox(2)
    verdicts = [box.put(1, round_, A(0)) for round_ in range(3)]
    assert verdicts == ["kept", "kept", "overflow"]
    assert box.put(2, 0, A(0)) == "kept"
    assert box.put(1, 0, B(0)) == "kept"
    assert box.dropped == Counter({"overflow": 1})


def test_room_comes_back_when_messages_are_taken() -> None:
    box = Mailbox(1)
    for round_ in range(5):
        assert box.put(1, round_, A(round_)) == "kept"
        box.take_round(A, round_, {1})
    assert box.put(1, 9, A(0)) == "kept"
    assert box.take_next(A) is not None
    assert box.put(1, 9, A(0)) == "kept"


# -- one after the other ---------------------------------------------------------------------------


def test_the_next_is_the_earliest_whatever_its_round() -> None:
    box = Mailbox(10)
    for source, round_, message in [(2, 7, A(0)), (1, 3, B(1)), (1, 1, A(2))]:
        box.put(source, round_, message)
    taken = [box.take_next(A), box.take_next(A), box.take_next(A)]
    assert [(d.source, d.round) if d else None for d in taken] == [(2, 7), (1, 1), None]
    left = box.take_next(B)
    assert left is not None
    assert (left.source, left.round) == (1, 3)


def test_the_next_of_any_kind() -> None:
    box = Mailbox(10)
    for number, message in enumerate([B(0), A(1), B(2)]):
        box.put(number, 0, message)
    sources = []
    while (delivery := box.take_next(Message)) is not None:
        sources.append(delivery.source)
    assert sources == [0, 1, 2]


def test_what_was_taken_as_next_is_not_in_its_round() -> None:
    box = Mailbox(10)
    box.put(1, 0, A(1))
    box.put(1, 0, A(2))
    box.take_next(A)
    assert box.heard(A, 0) == {1}
    assert numbers(box.take_round(A, 0, {1})) == {1: 2}
    assert box.dropped == Counter()


def test_clear() -> None:
    box = Mailbox(10)
    box.put(1, 0, A(1))
    box.clear()
    assert box.heard(A, 0) == set()
    assert box.take_next(A) is None


# -- any use ---------------------------------------------------------------------------------------


class AnyUse(RuleBasedStateMachine):
    """Against a plain list of messages, filtered anew at every step."""

    LIMIT = 4

    def __init__(self) -> None:
        super().__init__()
        self.box = Mailbox(self.LIMIT)
        self.kept: list[tuple[int, int, A]] = []
        self.dropped: Counter[str] = Counter()
        self.closed = -1

    @rule(source=st.integers(0, 2), round_=st.integers(0, 6))
    def put(self, source: int, round_: int) -> None:
        message = A(0)
        verdict = self.box.put(source, round_, message)
        if round_ <= self.closed:
            assert verdict == "late"
        elif sum(s == source for s, _, _ in self.kept) >= self.LIMIT:
            assert verdict == "overflow"
        else:
            assert verdict == "kept"
            self.kept.append((source, round_, message))
        if verdict != "kept":
            self.dropped[verdict] += 1

    @rule(round_=st.integers(0, 6), sources=st.sets(st.integers(0, 2)))
    def take_round(self, round_: int, sources: set[int]) -> None:
        want: dict[int, A] = {}
        for source, at, message in self.kept:
            if at == round_ and source in sources:
                if source in want:
                    self.dropped["duplicate"] += 1
                else:
                    want[source] = message
            elif at <= round_:
                self.dropped["late"] += 1
        assert self.box.take_round(A, round_, sources) == want
        self.kept = [entry for entry in self.kept if entry[1] > round_]
        self.closed = max(self.closed, round_)

    @rule()
    def take_next(self) -> None:
        delivery = self.box.take_next(A)
        if not self.kept:
            assert delivery is None
            return
        assert delivery is not None
        assert (delivery.source, delivery.round, delivery.message) == self.kept.pop(0)

    @invariant()
    def agrees(self) -> None:
        assert +self.box.dropped == +self.dropped
        for round_ in range(7):
            assert self.box.heard(A, round_) == {s for s, r, _ in self.kept if r == round_}


AnyUse.TestCase.settings = settings(deadline=None, max_examples=50, stateful_step_count=30)
TestAnyUse = AnyUse.TestCase
