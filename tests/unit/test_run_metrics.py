"""The coordinator's metrics of faults: what holds now, with labels that do not grow."""

from __future__ import annotations

import pytest
from support.runs import SMALL

from tidings_coordinator.experiment.load import loads
from tidings_coordinator.monitoring.live import LiveRun
from tidings_coordinator.monitoring.metrics import RunMetrics
from tidings_coordinator.planning import plan

pytestmark = pytest.mark.unit

RUN = plan(loads(SMALL, "small"), "small-1")


def said(live: LiveRun, event: str, state: str, *targets: str, occurrence: int = 0) -> None:
    """Lines of faults.jsonl."""
    line = {"event": event, "fault": "net.partition", "state": state, "time_s": 1.0}
    for target in targets:
        live.line("faults", line | {"target": target, "occurrence": occurrence})


def active(live: LiveRun) -> dict[str, float]:
    families = RunMetrics(RUN, live).collect()
    (family,) = (family for family in families if family.name == "tidings_fault_active")
    for sample in family.samples:
        assert set(sample.labels) == {"event", "fault"}
    return {sample.labels["event"]: sample.value for sample in family.samples}


def test_a_fault_is_active_on_as_many_targets_as_it_holds_on() -> None:
    live = LiveRun(RUN, [])
    assert active(live) == {}
    said(live, "split", "active", "0->1", "1->0")
    said(live, "kill", "failed", "3")
    assert active(live) == {"split": 2, "kill": 0}
    said(live, "split", "recovered", "0->1")
    said(live, "split", "active", "0->1", occurrence=1)
    assert active(live) == {"split": 2, "kill": 0}
    said(live, "split", "recovered", "1->0")
    said(live, "split", "recovered", "0->1", occurrence=1)
    assert active(live) == {"split": 0, "kill": 0}
    assert live.happened == {"fault active": 3, "fault failed": 1, "fault recovered": 3}


def test_any_number_of_events_has_so_many_labels() -> None:
    live = LiveRun(RUN, [])
    for number in range(200):
        said(live, f"event-{number}", "active", "0->1")
    found = active(live)
    assert len(found) == 51
    assert found["other"] == 150
