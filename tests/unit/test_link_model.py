"""The link model: closed forms, invariants under any load, and sharing of a network card."""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidings.links.model import Departure, Egress, Ingress
from tidings.links.shape import LinkShape, serialization_ns

pytestmark = pytest.mark.unit

MBIT = 1e6
MS = 1_000_000
#: later than anything in these tests
END = 10**18
CHUNK = 10_000
#: how long a chunk takes at 8 Mbit/s
CHUNK_NS = 10 * MS
NIC = 8 * MBIT

Out = Departure[str]


def egress(*shapes: LinkShape, nic: float = math.inf, quantum: int = CHUNK) -> Egress[str]:
    """Links 0, 1, ... of one node."""
    return Egress(99, 1, dict(enumerate(shapes)), nic, quantum)


def times(departures: Sequence[Out]) -> list[tuple[int, int]]:
    return [(out.end_ns, out.due_ns) for out in departures]


# -- one link, closed forms ------------------------------------------------------------------------


def test_a_message_takes_its_size_over_the_rate_and_the_delay() -> None:
    line = egress(LinkShape(20 * MBIT, delay_ns=20 * MS))
    line.offer(5 * MS, 0, [50_000], "a")
    # 400,000 bit at 20 Mbit/s are 20 ms
    assert times(list(line.advance(5 * MS))) == [(25 * MS, 45 * MS)]


def test_messages_queue_behind_each_other_but_fly_together() -> None:
    line = egress(LinkShape(20 * MBIT, delay_ns=100 * MS))
    for _ in range(3):
        line.offer(0, 0, [50_000], "a")
    assert times(list(line.advance(END))) == [(20 * k * MS, (100 + 20 * k) * MS) for k in (1, 2, 3)]


def test_an_idle_link_saves_up_no_credit() -> None:
    line = egress(LinkShape(20 * MBIT))
    line.offer(0, 0, [50_000], "a")
    line.offer(10**12, 0, [50_000], "b")
    assert [out.end_ns for out in line.advance(END)] == [20 * MS, 10**12 + 20 * MS]


def test_an_unlimited_link_has_its_delay_only() -> None:
    line = egress(LinkShape(delay_ns=7 * MS))
    for at in (0, 3):
        line.offer(at, 0, [10**9], "a")
    assert times(list(line.advance(END))) == [(0, 7 * MS), (3, 7 * MS + 3)]


def test_chunks_leave_one_after_the_other_and_the_last_is_marked() -> None:
    line = egress(LinkShape(8 * MBIT, delay_ns=MS))
    line.offer(0, 0, [CHUNK, CHUNK, CHUNK // 2], "a")
    outs = list(line.advance(END))
    assert [(out.number, out.last, out.size_bytes) for out in outs] == [
        (0, False, CHUNK),
        (1, False, CHUNK),
        (2, True, CHUNK // 2),
    ]
    assert [out.due_ns for out in outs] == [11 * MS, 21 * MS, 26 * MS]


def test_links_without_a_common_card_do_not_disturb_each_other() -> None:
    line = egress(LinkShape(8 * MBIT), LinkShape(8 * MBIT))
    line.offer(0, 0, [CHUNK] * 5, "a")
    line.offer(0, 1, [CHUNK], "b")
    ends = {out.target: out.end_ns for out in line.advance(END)}
    assert ends == {0: 5 * CHUNK_NS, 1: CHUNK_NS}


def test_a_lost_message_still_takes_the_line() -> None:
    line = egress(LinkShape(8 * MBIT, loss=0.5))
    for number in range(40):
        line.offer(0, 0, [CHUNK], str(number))
    outs = list(line.advance(END))
    assert [out.end_ns for out in outs] == [(k + 1) * CHUNK_NS for k in range(40)]
    assert 8 <= sum(out.lost for out in outs) <= 32  # beyond 3.8 sigma


def test_all_chunks_of_a_message_share_its_fate() -> None:
    line = egress(LinkShape(loss=0.5, jitter_ns=MS, delay_ns=MS))
    for number in range(50):
        line.offer(number * 10 * MS, 0, [1, 1, 1], str(number))
    fates = defaultdict(set)
    for out in line.advance(END):
        fates[out.item].add((out.lost, out.due_ns - out.end_ns))
    assert all(len(fate) == 1 for fate in fates.values())
    assert len(fates) == 50


# -- the queue's limit -----------------------------------------------------------------------------


def test_room_comes_when_enough_has_left() -> None:
    line = egress(LinkShape(8 * MBIT, queue_bytes=3 * CHUNK))
    for _ in range(3):
        assert line.room_ns(0, 0, CHUNK) == 0
        line.offer(0, 0, [CHUNK], "a")
    assert line.room_ns(0, 0, CHUNK) == CHUNK_NS
    assert line.room_ns(0, 0, 2 * CHUNK) == 2 * CHUNK_NS
    assert line.room_ns(CHUNK_NS, 0, CHUNK) == CHUNK_NS


def test_an_empty_queue_takes_a_message_of_any_size() -> None:
    line = egress(LinkShape(8 * MBIT, queue_bytes=1))
    assert line.room_ns(0, 0, 5 * CHUNK) == 0
    line.offer(0, 0, [5 * CHUNK], "a")
    assert line.room_ns(0, 0, 1) == 5 * CHUNK_NS


def test_room_behind_a_shared_card_is_unknown_until_the_card_has_decided() -> None:
    line = egress(LinkShape(queue_bytes=CHUNK), nic=NIC)
    line.offer(0, 0, [CHUNK], "a")
    assert line.room_ns(0, 0, CHUNK) is None
    assert line.next_ns() == 0
    assert len(list(line.advance(0))) == 1
    assert line.room_ns(0, 0, CHUNK) == CHUNK_NS


# -- a shared network card -------------------------------------------------------------------------


def test_a_message_passes_the_card_then_the_link() -> None:
    line = egress(LinkShape(4 * MBIT, delay_ns=MS), nic=8 * MBIT)
    line.offer(0, 0, [CHUNK] * 3, "a")
    # the first chunk is through the card after 10 ms, then the link is the bottleneck
    assert [out.due_ns for out in line.advance(END)] == [31 * MS, 51 * MS, 71 * MS]


def test_equal_backlogs_get_equal_shares_at_every_moment() -> None:
    line = egress(LinkShape(), LinkShape(), LinkShape(), nic=NIC)
    for target in range(3):
        for _ in range(20):
            line.offer(0, target, [CHUNK, CHUNK], "a")
    sent: Counter[int] = Counter()
    for out in line.advance(END):
        sent[out.target] += out.size_bytes
        assert max(sent.values()) - min(sent[target] for target in range(3)) <= CHUNK
    assert set(sent.values()) == {40 * CHUNK}


def test_shares_are_of_bytes_not_of_messages() -> None:
    line = egress(LinkShape(), LinkShape(), nic=NIC)
    line.offer(0, 0, [CHUNK] * 50, "long")
    for _ in range(500):
        line.offer(0, 1, [CHUNK // 10], "short")
    sent: Counter[int] = Counter()
    for out in line.advance(END):
        sent[out.target] += out.size_bytes
        assert abs(sent[0] - sent[1]) <= 2 * CHUNK


def test_a_short_message_waits_for_one_chunk_of_a_long_one() -> None:
    line = egress(LinkShape(), LinkShape(), nic=NIC)
    line.offer(0, 0, [CHUNK] * 1000, "long")
    now_ns = 3 * CHUNK_NS + 1
    line.offer(now_ns, 1, [100], "short")
    short = next(out for out in line.advance(END) if out.item == "short")
    assert short.end_ns == 4 * CHUNK_NS + serialization_ns(100, NIC)


def test_a_turn_brings_a_small_quantum_once() -> None:
    # chunks of three quanta: each lane has to save up for three turns, so they still alternate
    line = egress(LinkShape(), LinkShape(), nic=NIC, quantum=CHUNK // 3 + 1)
    for target in (0, 1):
        line.offer(0, target, [CHUNK] * 4, "a")
    assert [out.target for out in line.advance(END)] == [0, 1, 0, 1, 0, 1, 0, 1]


@pytest.mark.parametrize(
    ("asked", "fair"),
    [
        # max-min shares of 100: who asks for less than an equal share gets it, the rest is shared
        ([10, 20, 40, math.inf], [10, 20, 35, 35]),
        ([40, math.inf], [40, 60]),
        ([5, 13, 17, 29], [5, 13, 17, 29]),
        ([60, 60], [50, 50]),
        ([math.inf] * 5, [20] * 5),
    ],
)
def test_the_card_is_shared_max_min_fairly(asked: list[float], fair: list[float]) -> None:
    line = egress(*(LinkShape(rate * MBIT) for rate in asked), nic=100 * MBIT)
    for target in range(len(asked)):
        line.offer(0, target, [CHUNK] * 2000, "a")
    span_ns = 1000 * serialization_ns(CHUNK, 100 * MBIT)
    sent: Counter[int] = Counter()
    for out in line.advance(END):
        if out.end_ns <= span_ns:
            sent[out.target] += out.size_bytes
    achieved = [sent[target] * 8e3 / span_ns for target in range(len(asked))]
    assert achieved == pytest.approx(fair, abs=0.5)  # 5 of 1000 chunks


def test_the_card_passes_to_the_next_lane_while_a_link_is_busy() -> None:
    slow, fast = LinkShape(1 * MBIT), LinkShape(1000 * MBIT)
    line = egress(slow, fast, nic=8 * MBIT)
    line.offer(0, 0, [CHUNK] * 2, "slow")
    line.offer(0, 1, [CHUNK] * 2, "fast")
    ends = {(out.item, out.number): out.end_ns for out in line.advance(END)}
    assert ends["fast", 1] <= 4 * CHUNK_NS + MS
    # 10 ms through the card, then 80 ms a chunk on the link, without a pause between them
    assert (ends["slow", 0], ends["slow", 1]) == (90 * MS, 170 * MS)


# -- any load --------------------------------------------------------------------------------------

shapes = st.builds(
    LinkShape,
    rate_bit_per_s=st.sampled_from([math.inf, 1e5, 3e6, 8e6, 1e9]),
    delay_ns=st.sampled_from([0, MS, 50 * MS]),
    jitter_ns=st.sampled_from([0, MS, 30 * MS]),
    jitter_kind=st.sampled_from(["uniform", "normal", "exponential", "pareto"]),
    loss=st.sampled_from([0.0, 0.3]),
)
#: (pause before it, target, chunk sizes)
offers = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 1, MS, 7 * MS, 200 * MS]),
        st.integers(0, 2),
        st.lists(st.integers(1, CHUNK), min_size=1, max_size=4),
    ),
    min_size=1,
    max_size=25,
)
cards = st.sampled_from([math.inf, 1e6, 8e6])


@settings(deadline=None, max_examples=50)
@given(st.tuples(shapes, shapes, shapes), offers, cards, st.data())
def test_invariants(
    links: tuple[LinkShape, ...],
    load: list[tuple[int, int, list[int]]],
    nic: float,
    data: st.DataObject,
) -> None:
    line = egress(*links, nic=nic)
    lazy = egress(*links, nic=nic)
    now_ns, offered, eager_outs = 0, [], []
    for number, (pause_ns, target, chunks) in enumerate(load):
        # the eager one is advanced whenever it asks to be, the lazy one seldom and late
        while (next_ns := line.next_ns()) is not None and next_ns <= now_ns + pause_ns:
            eager_outs += list(line.advance(next_ns))
        now_ns += pause_ns
        line.offer(now_ns, target, chunks, str(number))
        lazy.offer(now_ns, target, chunks, str(number))
        offered.append(now_ns)
        if data.draw(st.booleans()):
            eager_outs += list(line.advance(now_ns))
    eager_outs += list(line.advance(END))
    outs = list(lazy.advance(END))

    def order(out: Departure[str]) -> tuple[object, ...]:
        return (out.target, out.item, *out[2:], out.lost)

    assert sorted(map(order, eager_outs)) == sorted(map(order, outs))
    got = Counter((out.target, out.item, out.number, out.size_bytes) for out in outs)
    want = Counter(
        (target, str(number), index, size)
        for number, (_, target, chunks) in enumerate(load)
        for index, size in enumerate(chunks)
    )
    assert got == want
    for target, shape in enumerate(links):
        check_link(shape, [out for out in outs if out.target == target], offered)
    check_card(outs, nic)


def check_link(shape: LinkShape, outs: list[Out], offered: list[int]) -> None:
    """FIFO, never above the rate, never before its time."""
    order = [(int(out.item), out.number) for out in outs]
    assert order == sorted(order)
    end_ns = due_ns = 0
    for out in outs:
        takes_ns = serialization_ns(out.size_bytes, shape.rate_bit_per_s)
        assert out.end_ns >= max(end_ns, offered[int(out.item)]) + takes_ns
        assert out.due_ns >= max(due_ns, out.end_ns)
        if shape.jitter_kind in ("exponential", "pareto"):  # they only add
            assert out.due_ns >= out.end_ns + shape.delay_ns
        end_ns, due_ns = out.end_ns, out.due_ns


def check_card(outs: list[Out], nic: float) -> None:
    """In no window does more leave than the card can carry, but for the chunk in hand."""
    if math.isinf(nic):
        return
    ordered = sorted((out.end_ns, out.size_bytes) for out in outs)
    for first in range(len(ordered)):
        size_bytes = 0
        for end_ns, more in ordered[first:]:
            size_bytes += more
            span_ns = end_ns - ordered[first][0]
            # one chunk may wait ready behind each of the three links
            assert size_bytes <= span_ns * nic / 8e9 + 5 * CHUNK


@settings(deadline=None, max_examples=50)
@given(offers)
def test_the_card_never_rests_while_something_waits(
    load: list[tuple[int, int, list[int]]],
) -> None:
    line = egress(LinkShape(), LinkShape(), LinkShape(), nic=NIC)
    now_ns = free_ns = 0
    for pause_ns, target, chunks in load:
        now_ns += pause_ns
        line.offer(now_ns, target, chunks, "a")
        free_ns = max(free_ns, now_ns) + sum(serialization_ns(size, NIC) for size in chunks)
    ends = sorted(out.end_ns for out in line.advance(END))
    assert ends[-1] == free_ns
    # and it carries one chunk at a time
    assert all(b > a for a, b in itertools.pairwise(ends))


# -- the receiver's card ---------------------------------------------------------------------------


def test_incast_is_shared_fairly_and_at_the_cards_rate() -> None:
    card: Ingress[int] = Ingress(NIC, CHUNK)
    for _ in range(10):
        for source in range(8):
            card.arrive(0, source, CHUNK, source)
    received: Counter[int] = Counter()
    ends = []
    for source, end_ns in card.advance(END):
        ends.append(end_ns)
        received[source] += 1
        assert max(received.values()) - min(received[source] for source in range(8)) <= 1
    assert ends == [(k + 1) * CHUNK_NS for k in range(80)]


def test_an_unlimited_card_says_so() -> None:
    assert not Ingress[int]().limited
    assert Ingress[int](NIC).limited


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.tuples(st.sampled_from([0, 1, 5 * MS, CHUNK_NS]), st.integers(0, 3), st.booleans()),
        max_size=40,
    )
)
def test_the_receivers_card_does_not_mind_late_calls(load: list[tuple[int, int, bool]]) -> None:
    prompt: Ingress[int] = Ingress(NIC, CHUNK)
    late: Ingress[int] = Ingress(NIC, CHUNK)
    now_ns, seen = 0, []
    for number, (pause_ns, source, look) in enumerate(load):
        now_ns += pause_ns
        while (next_ns := prompt.next_ns()) is not None and next_ns <= now_ns:
            seen += list(prompt.advance(next_ns))
        for card in (prompt, late):
            card.arrive(now_ns, source, CHUNK - source, number)
        if look:
            seen += list(prompt.advance(now_ns))
    assert seen + list(prompt.advance(END)) == list(late.advance(END))
    assert late.next_ns() is None
