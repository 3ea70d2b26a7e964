"""The curve that grows with a run has the points, and the cost, that its records will give."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.made_runs import fault, make
from support.runs import SMALL

from tidings_coordinator.experiment.load import loads
from tidings_coordinator.monitoring import curve as growing
from tidings_coordinator.planning import plan
from tidings_coordinator.records import series
from tidings_coordinator.records.directory import read_lines
from tidings_coordinator.records.series import cost_to, curve

pytestmark = pytest.mark.unit

SYNCHRONOUS = plan(loads(SMALL, "small"), "small-1")
ASYNCHRONOUS = plan(
    loads(SMALL.replace("{kind: d_psgd, lr: 0.1}", "{kind: ad_psgd, lr: 0.1}"), "small"), "small-2"
)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, tuple[Path, list[Any]]]:
    """By whether it is synchronous: a run of 4 nodes, and its rows."""
    found = {}
    for synchronous in (True, False):
        path = tmp_path_factory.mktemp("runs") / str(synchronous)
        make(path, [0.1, 0.25, 0.4, 0.5], graph={"synchronous": synchronous}).close()
        found[synchronous] = path, list(read_lines(path, "series"))
    return found


@given(st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_rounds_in_any_order_of_arrival(rows: dict[bool, tuple[Path, list[Any]]], rng: Any) -> None:
    path, lines = rows[True]
    run = growing.GrowingCurve(SYNCHRONOUS)
    # any interleaving of the nodes, each in its own order
    queues = [[row for row in lines if row["node"] == node] for node in range(4)]
    while any(queues):
        run.add(rng.choice([queue for queue in queues if queue]).pop(0))
    assert run.points == curve(path)
    assert run.goal is not None
    assert run.cost == cost_to(run.goal, run.points)
    assert run.cost is not None
    assert run.cost["rounds"] == 20
    assert run._groups._open == {}


def test_the_others_go_on_without_a_dead_node(tmp_path: Path) -> None:
    with make(tmp_path, [0.1, 0.25, 0.4, 0.5]) as directory:
        fault(directory, "kill", "active", 1.5, "3", kind="node.crash")
    lines = list(read_lines(tmp_path, "series"))
    run = growing.GrowingCurve(SYNCHRONOUS)
    before = [point for row in lines[:8] for point in run.add(row)]
    after = [point for row in lines[8:] if row["node"] != 3 for point in run.add(row)]
    assert (len(before), after) == (2, [])
    assert [point.round for point in run.lost(3)] == [20, 30]
    kept = [row for row in lines if row["node"] != 3 or row["round"] < 20]
    (tmp_path / "series.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    assert run.points == curve(tmp_path)
    # from now on nobody waits for it
    assert len([p for row in lines[12:15] for p in run.add(row | {"round": 40})]) == 1


def test_asynchronous_nodes(rows: dict[bool, tuple[Path, list[Any]]]) -> None:
    path, lines = rows[False]
    run = growing.GrowingCurve(ASYNCHRONOUS)
    for row in lines:
        run.add(row)
    assert run.points == curve(path)
    assert (run.first, run.last) == (run.points[0], run.points[-1])


def test_it_stays_small(rows: dict[bool, tuple[Path, list[Any]]]) -> None:
    _, lines = rows[True]
    run = growing.GrowingCurve(SYNCHRONOUS)
    first = [row for row in lines if row["round"] == 0]
    for number in range(5000):
        for row in first:
            # node 3 is dead for a while
            if row["node"] != 3 or not 1000 < number < 4000:
                run.add(row | {"round": number})
    assert len(run.points) <= growing._MAX_POINTS
    assert len(run._groups._open) <= series._MAX_OPEN
    assert run.first is not None
    assert run.last is not None
    assert (run.first.round, run.last.round) == (0, 4999)
