"""Timelines of simulated runs: they agree with what the nodes counted, and change nothing."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from support.runs import SMALL, lines, result

from tidings_coordinator.control.watch import Watcher
from tidings_coordinator.experiment import loads
from tidings_coordinator.records.reading import read
from tidings_coordinator.records.timeline import timelines
from tidings_coordinator.running import run_experiment

pytestmark = pytest.mark.sim

SETTINGS = ["launcher=simulator", "monitor.serve=false"]


def simulated(path: Path, *changes: str) -> dict[str, Any]:
    experiment = loads(SMALL, "small.yaml", [*SETTINGS, *changes])
    run_experiment(experiment, SMALL, path, Watcher(), path.parent)
    return result(path)


def test_it_says_what_the_ledger_says(tmp_path: Path) -> None:
    # a queue that holds one message holds up senders that do not wait for their neighbours
    slow = ["network.rate=1Mbit/s", "network.queue=6kB", "wait.timeout=1ms"]
    found = simulated(tmp_path / "on", *slow)
    by_node = timelines(read(tmp_path / "on"))
    assert sorted(by_node) == [0, 1, 2, 3]
    ledgers = {row["node"]: row for row in lines(tmp_path / "on", "nodes")}
    blocked: dict[int, float] = dict.fromkeys(by_node, 0.0)
    for link in lines(tmp_path / "on", "links"):
        blocked[link["source"]] += link["blocked_s"]
    for node, spans in by_node.items():
        assert spans[0].from_us == 0
        assert all(a.to_us == b.from_us for a, b in itertools.pairwise(spans))
        assert spans[-1].to_us == pytest.approx(1e6 * found["time_s"], abs=2)
        computing = sum(span.computing_us for span in spans) / 1e6
        assert computing == pytest.approx(ledgers[node]["compute_s"], rel=1e-3)
        sending = sum(span.sending_us for span in spans) / 1e6
        assert sending == pytest.approx(blocked[node], rel=1e-3)
        assert sending > 0


def test_it_changes_nothing(tmp_path: Path) -> None:
    on = simulated(tmp_path / "on")
    off = simulated(tmp_path / "off", "records.timeline=false")
    for key in ("weights_sha256", "trace_hash", "time_s", "bytes"):
        assert on[key] == off[key]
    assert not (tmp_path / "off" / "timeline.jsonl").exists()


def test_a_run_that_fails_has_one_too(tmp_path: Path) -> None:
    found = simulated(tmp_path / "out", "network.rate=10kbit/s", "protocol.lr=1e30")
    assert found["time_s"] > 1
    assert len(timelines(read(tmp_path / "out"))) == 4
