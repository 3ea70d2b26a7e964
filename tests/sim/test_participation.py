"""Federated rounds in which only some clients take part: the curve is whole, its bytes exact."""

from __future__ import annotations

from pathlib import Path

import pytest

from tidings_coordinator.control.watch import Watcher
from tidings_coordinator.experiment.load import loads
from tidings_coordinator.records.series import curve
from tidings_coordinator.running import run_experiment

pytestmark = pytest.mark.sim

EXPERIMENT = """
name: few
nodes: 11
topology: star
problem: {kind: digits, hidden: 8}
protocol: {kind: fed_avg, lr: 0.1, local_steps: 2, participation: 30%}
stop: {rounds: 23}
evaluate: {every: 5}
target: {accuracy: 5%}
monitor: {serve: false}
launcher: simulator
"""
DRAWN = 3


def test_every_round_that_was_due_has_a_point_with_the_bytes_of_that_round(tmp_path: Path) -> None:
    experiment = loads(EXPERIMENT)
    outcome = run_experiment(experiment, EXPERIMENT, tmp_path / "run", Watcher(), tmp_path)
    points = curve(tmp_path / "run")
    assert [point.round for point in points] == [0, 5, 10, 15, 20, 23]
    assert outcome.result["rounds"] == 23
    assert [point.messages for point in points[:-1]] == [2 * DRAWN * k for k in (0, 5, 10, 15, 20)]
    # the run is closed by a message to every client
    assert points[-1].messages == 2 * DRAWN * 23 + 10
    assert [point.time_s for point in points] == sorted(point.time_s for point in points)
    assert outcome.result["to_target"] is not None


def test_a_run_that_is_ended_by_time_has_the_points_up_to_its_end(tmp_path: Path) -> None:
    text = EXPERIMENT.replace("stop: {rounds: 23}", "stop: {time: 100ms}")
    outcome = run_experiment(loads(text), text, tmp_path / "run", Watcher(), tmp_path)
    points = curve(tmp_path / "run")
    assert len(points) > 3
    sent = [point.bytes["total"] for point in points]
    assert sent == sorted(sent)
    assert sent[-1] == outcome.result["bytes"]["total"]
