"""The series read back: which rows make a point, over whom it is averaged, when a goal is met."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.made_runs import fault

from tidings.v1 import records_pb2 as records
from tidings_coordinator.records.directory import RunDirectory
from tidings_coordinator.records.series import Goal, Point, Spread, cost_to, curve

pytestmark = pytest.mark.unit

Row = tuple[int, int, float, dict[str, float], list[float]]


def write(
    path: Path, rows: list[Row], *, synchronous: bool = True, byzantine: tuple[int, ...] = ()
) -> None:
    """Rows (node, round, seconds, metrics, sketch); a node has sent 100 B by each of its rounds."""
    with RunDirectory.create(path) as directory:
        graph = {"synchronous": synchronous, "byzantine": list(byzantine)}
        directory.write_json("graph.json", graph)
        for node, round_, time_s, metrics, sketch in rows:
            directory.evaluation(
                records.Evaluation(
                    node=node,
                    round=round_,
                    time_s=time_s,
                    bytes=records.Bytes(payload=90 * round_, header=10 * round_),
                    messages=round_,
                    metrics=metrics,
                    sketch=np.array(sketch, dtype="<f4").tobytes(),
                )
            )


def row(node: int, round_: int, time_s: float, loss: float = 1.0) -> Row:
    return node, round_, time_s, {"loss": loss}, [float(node), 0.0]


def test_a_synchronous_point_is_a_round_that_every_node_has_reached(tmp_path: Path) -> None:
    rows = [row(0, 0, 0.0, 4.0), row(1, 0, 0.5, 2.0), row(1, 10, 1.0, 1.0), row(0, 10, 3.0, 3.0)]
    write(tmp_path / "run", [*rows, row(0, 20, 4.0)])
    first, second = curve(tmp_path / "run")
    assert (first.round, second.round) == (0, 10)
    # a round is over when its last node is
    assert (first.time_s, second.time_s) == (0.5, 3.0)
    assert first.metrics == {"loss": Spread(3.0, 2.0, 4.0)}
    others = dict.fromkeys(("metadata", "control", "heartbeat"), 0)
    assert second.bytes == {"total": 2000, "payload": 1800, "header": 200} | others
    assert second.messages == 20


def died(path: Path, node: int, time_s: float, *, back_s: float | None = None) -> None:
    """A fault has killed a node, and perhaps brought it back."""
    with RunDirectory(path) as directory:
        fault(directory, "kill", "active", time_s, str(node), kind="node.crash")
        if back_s is not None:
            fault(directory, "kill", "recovered", back_s, str(node), kind="node.crash")


def test_the_others_go_on_without_a_dead_node(tmp_path: Path) -> None:
    times = [(0, 0.0), (10, 1.0), (20, 2.0), (30, 3.0)]
    rows = [
        row(node, r, t, node + 1.0) for r, t in times for node in (0, 1, 2) if node < 2 or t < 2
    ]
    write(tmp_path / "run", rows)
    assert [point.round for point in curve(tmp_path / "run")] == [0, 10]
    died(tmp_path / "run", 2, 1.5)
    points = curve(tmp_path / "run")
    assert [point.round for point in points] == [0, 10, 20, 30]
    assert points[1].metrics["loss"] == Spread(2.0, 1.0, 3.0)
    # its model is no more, what it had sent was sent
    assert points[3].metrics["loss"] == Spread(1.5, 1.0, 2.0)
    assert points[3].bytes["total"] == 3000 + 3000 + 1000
    assert points[3].consensus_distance == pytest.approx(0.25)


def test_a_node_that_comes_back_is_missed_in_between(tmp_path: Path) -> None:
    times = [(0, 0.0), (10, 1.0), (20, 2.0), (30, 3.0)]
    rows = [
        row(node, r, t) for r, t in times for node in (0, 1) if (node, r) not in {(1, 10), (1, 20)}
    ]
    write(tmp_path / "run", rows)
    died(tmp_path / "run", 1, 0.5, back_s=2.5)
    points = curve(tmp_path / "run")
    assert [(point.round, point.bytes["total"]) for point in points] == [
        (0, 0), (10, 1000), (20, 2000), (30, 6000)
    ]  # fmt: skip


def test_a_dead_node_that_does_not_go_in_step(tmp_path: Path) -> None:
    rows = [row(0, 1, 1.0, 1.0), row(1, 1, 1.0, 5.0), row(0, 2, 2.0, 1.0), row(0, 3, 3.0, 1.0)]
    write(tmp_path / "run", rows, synchronous=False)
    died(tmp_path / "run", 1, 1.5)
    points = curve(tmp_path / "run")
    assert [point.metrics["loss"].mean for point in points] == [3.0, 1.0]
    assert points[-1].bytes["total"] == 300 + 100


def test_consensus_distance_is_the_mean_squared_distance_to_the_mean(tmp_path: Path) -> None:
    write(tmp_path / "run", [(0, 0, 0.0, {}, [0.0, 0.0]), (1, 0, 0.0, {}, [2.0, 4.0])])
    # the mean is (1, 2); both are 1^2 + 2^2 away from it
    assert curve(tmp_path / "run")[0].consensus_distance == pytest.approx(5.0)


def test_byzantine_nodes_count_for_bytes_but_not_for_metrics(tmp_path: Path) -> None:
    rows = [row(node, 10, 1.0, loss) for node, loss in enumerate([1.0, 2.0, 1000.0])]
    write(tmp_path / "run", rows, byzantine=(2,))
    (point,) = curve(tmp_path / "run")
    assert point.metrics["loss"] == Spread(1.5, 1.0, 2.0)
    assert point.consensus_distance == pytest.approx(0.25)
    assert point.bytes["total"] == 3000


def test_an_asynchronous_point_takes_every_node_as_it_was_last(tmp_path: Path) -> None:
    # node 1 is evaluated once for three times of node 0
    rows = [row(0, 5, 1.0), row(1, 2, 2.0), row(0, 10, 3.0), row(0, 15, 4.0)]
    write(tmp_path / "run", rows, synchronous=False)
    points = curve(tmp_path / "run")
    assert [point.time_s for point in points] == [2.0, 4.0]
    assert [point.round for point in points] == [3.5, 8.5]


def test_nodes_in_step_that_are_evaluated_by_time_are_taken_as_they_were_last(
    tmp_path: Path,
) -> None:
    write(tmp_path / "run", [row(0, 0, 0.0), row(1, 0, 0.0), row(0, 7, 1.0), row(1, 8, 1.1)])
    graph = tmp_path / "run" / "graph.json"
    graph.write_text('{"synchronous": true, "evaluated_by_time": true}')
    assert [point.round for point in curve(tmp_path / "run")] == [0, 7.5]


def test_asynchronous_rows_need_not_be_written_in_order(tmp_path: Path) -> None:
    rows = [row(0, 1, 1.0), row(1, 1, 1.5), row(0, 2, 2.0), row(1, 2, 2.5)]
    write(tmp_path / "a", rows, synchronous=False)
    write(tmp_path / "b", rows[::-1], synchronous=False)
    assert curve(tmp_path / "a") == curve(tmp_path / "b")


def test_an_asynchronous_run_ends_with_its_last_row(tmp_path: Path) -> None:
    rows = [row(0, 1, 1.0), row(1, 1, 1.5), row(0, 2, 2.0)]
    write(tmp_path / "run", rows, synchronous=False)
    assert [point.time_s for point in curve(tmp_path / "run")] == [1.5, 2.0]


def test_what_a_crash_cut_off_is_left_out(tmp_path: Path) -> None:
    write(tmp_path / "run", [row(n, r, float(r)) for r in (0, 10) for n in (0, 1)])
    series = tmp_path / "run" / "series.jsonl"
    series.write_bytes(series.read_bytes()[:-40])
    assert [point.round for point in curve(tmp_path / "run")] == [0]


def test_a_directory_without_a_series_has_no_points(tmp_path: Path) -> None:
    RunDirectory.create(tmp_path / "run").close()
    assert curve(tmp_path / "run") == []


def test_numbers_that_json_does_not_have_come_back_as_nan(tmp_path: Path) -> None:
    rows: list[Row] = [
        (0, 5, 1.0, {"loss": math.inf}, [0.0]),
        (1, 5, 1.0, {"loss": 2.0}, [0.0]),
    ]
    write(tmp_path / "run", rows)
    text = (tmp_path / "run" / "series.jsonl").read_text()
    assert [json.loads(line)["metrics"]["loss"] for line in text.splitlines()] == [None, 2.0]
    (point,) = curve(tmp_path / "run")
    assert math.isnan(point.metrics["loss"].mean)
    assert not Goal("loss", 10.0).met(point)


def point(accuracy: float, loss: float, cost: int) -> Point:
    spreads = {
        "accuracy": Spread(accuracy, accuracy - 0.5, accuracy + 0.5),
        "loss": Spread(loss, loss - 5, loss + 5),
    }
    return Point(cost, cost / 10, {"total": 1000 * cost}, cost, spreads, 0.0)


def test_the_cost_is_that_of_the_first_point_at_which_the_mean_is_there() -> None:
    points = [point(0.2, 9.0, 1), point(0.6, 4.0, 2), point(0.5, 5.0, 3), point(0.7, 3.0, 4)]
    at_2 = {"bytes": 2000, "time_s": 0.2, "rounds": 2}
    assert cost_to(Goal("accuracy", 0.6), points) == at_2
    assert cost_to(Goal("loss", 4.0), points) == at_2
    assert cost_to(Goal("accuracy", 0.71), points) is None
    assert cost_to(Goal("suboptimality", 1.0), points) is None
    assert cost_to(Goal("accuracy", 0.1), []) is None


@settings(deadline=None, max_examples=50)
@given(
    means=st.lists(st.floats(0, 1), min_size=1, max_size=12),
    value=st.floats(0, 1),
    easier=st.floats(0, 1),
)
def test_an_easier_goal_never_costs_more(means: list[float], value: float, easier: float) -> None:
    points = [point(mean, 1 - mean, number) for number, mean in enumerate(means)]
    low, high = sorted((value, easier))
    hard, easy = cost_to(Goal("accuracy", high), points), cost_to(Goal("accuracy", low), points)
    if hard is not None:
        assert easy is not None
        assert easy["bytes"] <= hard["bytes"]
    else:
        assert max(means) < high
