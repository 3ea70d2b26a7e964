"""A node's timeline: spans without gaps, of bounded number, that add up; drawn, and as a trace."""

from __future__ import annotations

import itertools
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.made_runs import fault, finish, make

from tidings.runtime.timeline import Timeline
from tidings.v1 import records_pb2 as records
from tidings_coordinator.records.directory import RunDirectory
from tidings_coordinator.records.reading import read
from tidings_coordinator.records.timeline import Span, timelines
from tidings_coordinator.report.timeline import draw
from tidings_coordinator.report.trace import write_trace

pytestmark = pytest.mark.unit


class Hand:
    """A clock that is set by hand."""

    now_ns = 0

    @property
    def now_s(self) -> float:
        return self.now_ns / 1e9


def spans(activity: records.Activity | None) -> list[tuple[int, int, int]]:
    assert activity is not None
    return list(zip(activity.length_us, activity.computing_us, activity.sending_us, strict=True))


def test_states_follow_each_other() -> None:
    clock = Hand()
    line = Timeline(3, clock, 100)
    clock.now_ns = 5_000
    line.begin()
    for at_us, change, state in (
        (15, line.enter, "computing"),
        (20, line.enter, "sending"),  # something else of the node: it still computes
        (45, line.leave, "computing"),
        (50, line.leave, "sending"),
        (50, line.enter, "sending"),  # at once: no span of no length
        (60, line.leave, "sending"),
    ):
        clock.now_ns = 1000 * at_us
        change(state)  # type: ignore[arg-type]
    clock.now_ns = 70_000
    found = line.take()
    assert found is not None
    assert (found.node, found.from_us) == (3, 5)
    assert spans(found) == [(10, 0, 0), (30, 30, 0), (5, 0, 5), (10, 0, 10), (10, 0, 0)]
    assert line.take() is None
    clock.now_ns = 80_000
    line.end()
    clock.now_ns = 99_000
    line.enter("computing")
    assert spans(line.take()) == [(10, 0, 0)]
    assert line.take() is None


def test_one_that_keeps_nothing() -> None:
    clock = Hand()
    line = Timeline(0, clock, 0)
    line.begin()
    line.enter("computing")
    clock.now_ns = 1000
    assert line.take() is None


@given(
    st.lists(
        st.tuples(st.integers(0, 3_000_000), st.sampled_from(["computing", "sending", "take"])),
        max_size=60,
    ),
    st.integers(1, 10),
)
@settings(deadline=None)
def test_spans_add_up_whatever_happens(steps: list[tuple[int, str]], most: int) -> None:
    clock = Hand()
    line = Timeline(0, clock, most)
    line.begin()
    spent = {"computing": 0, "sending": 0}
    found: list[tuple[int, int, int]] = []
    at = 0
    for length_ns, what in steps:
        if what == "take":
            clock.now_ns += length_ns
            activity = line.take()
            if activity is not None:
                assert activity.from_us == at
                found += spans(activity)
                at += sum(activity.length_us)
        else:
            line.enter(what)  # type: ignore[arg-type]
            clock.now_ns += length_ns
            line.leave(what)  # type: ignore[arg-type]
            spent[what] += length_ns
    line.end()
    last = line.take()
    found += spans(last) if last is not None else []
    assert sum(length for length, _, _ in found) == round(clock.now_ns / 1000)
    # each is rounded to a microsecond
    assert abs(sum(c for _, c, _ in found) - spent["computing"] / 1000) <= len(found) / 2
    assert abs(sum(s for _, _, s in found) - spent["sending"] / 1000) <= len(found) / 2


def test_any_run_takes_little_room_and_its_beginning_is_exact() -> None:
    clock = Hand()
    line, made = Timeline(0, clock, 100), 0
    line.begin()
    first: list[tuple[int, int, int]] = []
    for _ in range(100_000):
        line.enter("computing")
        clock.now_ns += 2_000_000
        line.leave("computing")
        clock.now_ns += 1_000_000
        if line.pending >= 50:
            taken = spans(line.take())
            first = first or taken
            made += len(taken)
    assert first[:3] == [(2000, 2000, 0), (1000, 0, 0), (2000, 2000, 0)]
    # a thousand times as long as the first 100 spans: 10 doublings of 50 spans each
    assert made < 100 * (1 + 11 / 2)


# -- read back ---------------------------------------------------------------------------------


def recorded(path: Path, lines: list[tuple[int, int, list[list[int]]]]) -> RunDirectory:
    """A run of four nodes with these lines of (node, from, spans)."""
    run = make(path, [0.1, 0.2, 0.3])
    for node, from_us, spans_ in lines:
        run.append("timeline", {"node": node, "from_us": from_us, "spans": spans_})
    return run


SECOND = 1_000_000
#: of each second, 0.3 computing, then waiting
STEADY = [[300_000, 300_000, 0], [700_000, 0, 0]] * 2


def test_lines_are_put_together(tmp_path: Path) -> None:
    run = recorded(
        tmp_path,
        [
            (0, 0, [[10, 10, 0], [5, 5, 0], [5, 0, 0]]),
            (0, 20, [[5, 0, 0], [8, 4, 2], [2, 1, 1]]),
            (1, 0, [[30, 0, 30]]),
        ],
    )
    run.close()
    assert timelines(read(tmp_path)) == {
        0: [
            Span(0, 15, 15, 0),
            Span(15, 25, 0, 0),
            Span(25, 33, 4, 2),
            Span(33, 35, 1, 1),
        ],
        1: [Span(0, 30, 0, 30)],
    }


def test_a_node_that_is_down_does_nothing(tmp_path: Path) -> None:
    # node 2 leaves nothing behind from its death on, node 3 does not know that it was paused
    half = [[300_000, 300_000, 0], [200_000, 0, 0]]
    run = recorded(tmp_path, [(0, 0, STEADY), (2, 0, half), (3, 0, STEADY)])
    run.event("died", 0.5, 2, how="SIGKILL")
    fault(run, "kill", "active", 0.1, "1", kind="node.crash")
    fault(run, "kill", "recovered", 0.4, "1", kind="node.crash")
    fault(run, "stop", "active", 0.2, "3", kind="node.pause")
    fault(run, "stop", "recovered", 1.1, "3", kind="node.pause")
    run.close()
    found = timelines(read(tmp_path))
    assert found[1] == [Span(100_000, 400_000, down=True)]
    assert found[2][-1] == Span(500_000, 2 * SECOND, down=True)
    assert [(s.from_us, s.to_us, s.state) for s in found[3]] == [
        (0, 200_000, "computing"),
        (200_000, 1_100_000, "down"),
        (1_100_000, 1_300_000, "computing"),
        (1_300_000, 2_000_000, "waiting"),
    ]


# -- drawn -------------------------------------------------------------------------------------


def area(svg: str, state: str) -> float:
    boxes = re.findall(rf'<path class="{state}" d="([^"]*)"', svg)
    shapes = [box for path in boxes for box in re.findall(r"h([\d.]+)v([\d.]+)h", path)]
    return sum(float(width) * float(height) for width, height in shapes)


def test_what_is_drawn_is_as_large_as_it_took_long(tmp_path: Path) -> None:
    # beside long spans, 4,000 that are far too short to be seen one by one
    short = [[100, 25, 50], [150, 0, 0]] * 2000 + [[SECOND, 0, 0], [500_000, 500_000, 0]]
    run = recorded(tmp_path, [(node, 0, [*STEADY] if node else short) for node in range(4)])
    fault(run, "kill", "active", 1.0, "3", kind="node.crash")
    run.close()
    drawn = draw(read(tmp_path))
    assert drawn is not None
    assert drawn.states == ["computing", "sending", "waiting", "down"]
    whole = sum(area(drawn.svg, state) for state in drawn.states)
    # of 8 seconds: 0.05 + 0.5, twice 0.6, 0.3
    assert area(drawn.svg, "computing") / whole == pytest.approx(2.05 / 8, rel=0.01)
    assert area(drawn.svg, "sending") / whole == pytest.approx(0.1 / 8, rel=0.03)
    assert area(drawn.svg, "down") / whole == pytest.approx(1 / 8, rel=0.01)
    assert list(drawn.shares.rows[3]) == ["3", "15.0 %", "0.0 %", "35.0 %", "50.0 %"]
    assert len(drawn.svg) < 60_000


def test_nothing_is_drawn_of_nothing(tmp_path: Path) -> None:
    run = make(tmp_path, [0.1])
    finish(run)
    assert draw(read(tmp_path)) is None
    assert write_trace(tmp_path) is None


# -- the trace ---------------------------------------------------------------------------------


def check_trace(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The file's events by phase, once it is seen to keep the format's rules."""
    data = json.loads(path.read_text())
    assert isinstance(data["traceEvents"], list)
    assert data["displayTimeUnit"] in ("ms", "ns")
    by_phase = defaultdict(list)
    for event in data["traceEvents"]:
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        assert isinstance(event["name"], str)
        if event["ph"] == "M":
            assert event["name"] in ("process_name", "thread_name")
            assert isinstance(event["args"]["name"], str)
        else:
            assert isinstance(event["ts"], int)
            assert event["ts"] >= 0
            assert isinstance(event["cat"], str)
        by_phase[event["ph"]].append(event)
    assert set(by_phase) <= {"M", "X", "i", "b", "e"}
    threads = defaultdict(list)
    for event in by_phase["X"]:
        assert event["dur"] >= 0
        threads[event["pid"], event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
    for stretches in threads.values():
        # complete events of a thread may lie inside one another; these lie side by side
        for (_, end), (start, _) in itertools.pairwise(stretches):
            assert end <= start
    assert all(event["s"] in "gpt" for event in by_phase["i"])
    opened = {(e["cat"], e["id"], e["pid"]): e for e in by_phase["b"]}
    assert len(opened) == len(by_phase["b"]) == len(by_phase["e"])
    for event in by_phase["e"]:
        begun = opened.pop((event["cat"], event["id"], event["pid"]))
        assert begun["name"] == event["name"]
        assert begun["ts"] <= event["ts"]
    return by_phase


def test_the_trace(tmp_path: Path) -> None:
    run = recorded(tmp_path, [(node, 0, STEADY) for node in (0, 2)])
    run.event("started", 0.0)
    run.event("thought", 0.7, 2)
    fault(run, "split", "active", 0.5, "0->1")
    fault(run, "split", "recovered", 0.9, "0->1")
    fault(run, "kill", "active", 1.5, "2", kind="node.crash")
    fault(run, "note", "active", 0.25, "run", kind="mark")
    finish(run)
    path = write_trace(tmp_path)
    assert path == tmp_path / "trace.json"
    found = check_trace(path)
    node_2 = [(e["ts"], e["dur"], e["name"]) for e in found["X"] if e["tid"] == 2]
    assert node_2[-2:] == [(1_300_000, 200_000, "waiting"), (1_500_000, 500_000, "down")]
    assert {e["args"]["name"] for e in found["M"]} == {
        "made: nodes", "made: faults", "node 0", "node 2"
    }  # fmt: skip
    assert [(e["name"], e["ts"]) for e in found["b"]] == [("split", 500_000), ("kill", 1_500_000)]
    # the run, that was 4 s long, did not heal the second
    assert [e["ts"] for e in found["e"]] == [900_000, 4_000_000]
    assert [(e["name"], e["s"]) for e in found["i"]] == [
        ("started", "p"), ("thought", "t"), ("note", "g")
    ]  # fmt: skip
