"""Random schedules of faults in virtual time: the run ends, and the books are right.

A schedule that fails is printed as an experiment file with the command that runs it again.
TIDINGS_SCHEDULES says how many are tried.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from support.runs import lines

from tidings_coordinator.control.watch import Watcher
from tidings_coordinator.experiment.load import loads
from tidings_coordinator.running import Outcome, run_experiment

pytestmark = pytest.mark.sim

SCHEDULES = int(os.environ.get("TIDINGS_SCHEDULES", "25"))
NODES = 6

PROTOCOLS: list[dict[str, Any]] = [
    {"kind": "d_psgd", "lr": 0.05},
    {"kind": "gradient_tracking", "lr": 0.02},
    {"kind": "choco_sgd", "lr": 0.05, "gamma": 0.3},
    {"kind": "ad_psgd", "lr": 0.05},
]
LINKS = ["0->1", "0<->1", "random(2)", "random(40%)", "cutset", "all"]
NODE = [0, 3, "one", "random(2)", "hub", "minority"]
#: (fault, its parameters, what it hits, whether it lasts)
MENU: list[tuple[str, dict[str, Any], list[Any] | None, bool]] = [
    ("link.cut", {}, LINKS, True),
    ("link.cut", {"mode": "reject"}, LINKS, True),
    ("link.loss", {"p": 0.3}, LINKS, True),
    ("link.duplicate", {"p": 0.3}, LINKS, True),
    ("link.reorder", {"p": 0.3, "by": "20ms"}, LINKS, True),
    ("link.corrupt", {"p": 0.3, "bits": 2}, LINKS, True),
    ("link.shape", {"rate": "1Mbit/s", "delay": "10ms"}, LINKS, True),
    ("link.scale", {}, LINKS, True),
    ("link.flap", {"period": "40ms"}, LINKS, True),
    ("msg.delay", {"p": 0.3, "by": "20ms"}, LINKS, True),
    ("msg.truncate", {"p": 0.2}, LINKS, True),
    ("msg.replay", {"p": 0.2}, LINKS, True),
    ("net.partition", {"shape": "halves"}, None, True),
    ("net.partition", {"shape": "one", "oneway": True}, None, True),
    ("net.partition", {"shape": "bridge"}, None, True),
    ("node.isolate", {"direction": "in"}, NODE, True),
    ("node.crash", {}, [1, 4, "one"], False),
    ("node.crash", {"restart_after": "40ms"}, [1, 4, "one"], False),
    ("node.crash", {"restart_after": "40ms", "lose_state": True}, [2], False),
    ("node.pause", {}, NODE, True),
    ("node.slow", {"factor": 3.0}, NODE, True),
    ("node.clock", {"drift_ppm": 5000.0}, NODE, True),
    ("byz.sign_flip", {}, [5], True),
    ("mark", {}, None, False),
]
MOMENTS = st.one_of(
    st.integers(0, 200).map(lambda ms: f"{ms}ms"),
    st.integers(0, 20).map(lambda r: {"round": r}),
    st.integers(0, 20).map(lambda r: {"round": r, "of": "median"}),
    st.integers(1, 60).map(lambda kb: {"bytes": f"{kb}kB"}),
)
SPANS = st.one_of(
    st.integers(1, 150).map(lambda ms: f"{ms}ms"),
    st.integers(1, 10).map(lambda r: {"rounds": r}),
    st.none(),
)


@st.composite
def schedules(draw: st.DrawFn) -> dict[str, Any]:
    """An experiment with one to four events."""
    events = []
    for number in range(draw(st.integers(1, 4))):
        fault, parameters, targets, lasting = draw(st.sampled_from(MENU))
        event: dict[str, Any] = {"id": f"e{number}", "fault": fault, "at": draw(MOMENTS)}
        if parameters:
            event["with"] = parameters
        if targets is not None:
            event["on"] = draw(st.sampled_from(targets))
        span = draw(SPANS) if lasting else None
        if span is not None:
            event["for"] = span
        events.append(event)
    return {
        "name": "random",
        "seed": draw(st.integers(0, 10**6)),
        "nodes": NODES,
        "topology": draw(st.sampled_from(["ring", "complete"])),
        "network": {"rate": "20Mbit/s", "delay": "1ms", "loss": draw(st.sampled_from([0.0, 0.05]))},
        "problem": {"kind": "quadratic", "dim": 50},
        "protocol": draw(st.sampled_from(PROTOCOLS)),
        "compute": {"time": "2ms"},
        "wait": {"for": draw(st.sampled_from(["all", "live", 1])), "timeout": "30ms"},
        "checkpoint": {"every": 5},
        "stop": {"rounds": 25, "time": "20s"},
        "evaluate": {"every": 5},
        "launcher": {"kind": "simulator", "tie_seed": draw(st.integers(0, 100))},
        "monitor": {"serve": False},
        "faults": events,
    }


def ran(text: str, path: Path) -> Outcome:
    return run_experiment(loads(text, "random.yaml"), text, path, Watcher(), path.parent)


@settings(
    max_examples=SCHEDULES,
    deadline=None,
    # the schedule that failed is short already
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(schedules())
def test_whatever_is_broken(experiment: dict[str, Any]) -> None:
    text = yaml.safe_dump(experiment, sort_keys=False)
    note(f"to run it again: tidings simulate random.yaml, with random.yaml being\n\n{text}")
    with tempfile.TemporaryDirectory() as folder:
        first = ran(text, Path(folder) / "first")
        second = ran(text, Path(folder) / "second")
        changes = lines(first.directory, "faults")
        nodes = {line["node"]: line for line in lines(first.directory, "nodes")}
        links = lines(first.directory, "links")
    # whatever was broken, the run came to its end, the same way twice
    assert first.result["run"] == "completed", first.result["reason"]
    assert first.result["trace_hash"] == second.result["trace_hash"]
    assert first.result["weights_sha256"] == second.result["weights_sha256"]
    _every_beginning_has_an_end(changes)
    _no_message_from_nowhere(links, nodes)


def _every_beginning_has_an_end(changes: list[dict[str, Any]]) -> None:
    """What has come has gone again at the end, but for the dead, and nothing goes twice."""
    open_: dict[tuple[str, int, str], int] = {}
    for line in changes:
        key = (line["event"], line["occurrence"], line["target"])
        if line["state"] == "active":
            open_[key] = open_.get(key, 0) + 1
        elif line["state"] == "recovered":
            assert open_.get(key, 0) > 0, line
            open_[key] = 0
    dead = {
        line["target"]
        for line in changes
        if line["fault"] == "node.crash" and line["state"] == "active"
    }
    left = [key for key, count in open_.items() if count and key[2].partition("->")[0] not in dead]
    lasting = {line["event"] for line in changes if line["fault"] not in ("mark", "node.crash")}
    assert not [key for key in left if key[0] in lasting]


def _no_message_from_nowhere(links: list[dict[str, Any]], nodes: dict[int, dict[str, Any]]) -> None:
    """No more arrives over a link than was handed to it, less what it and faults have lost."""
    for link in links:
        if link["target"] not in nodes:
            continue
        arrival = nodes[link["target"]]["arrivals"].get(str(link["source"]))
        if arrival is None:
            continue
        came = arrival["messages"] + arrival["refused"]["messages"]
        lost = link["lost"]["messages"] + sum(f["messages"] for f in link["faulted"].values())
        assert came <= link["messages"] + link["duplicated"]["messages"] - lost, link
