"""Random schedules of faults in virtual time: the run ends, and the books are right.

A schedule that fails is printed as the one command that does it again.
TIDINGS_SCHEDULES says how many are tried.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from support.experiments import check
from support.schedules import replayable

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


@settings(
    max_examples=SCHEDULES,
    deadline=None,
    # the schedule that failed is short already
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(schedules())
def test_whatever_is_broken(experiment: dict[str, Any]) -> None:
    with replayable(experiment):
        check(experiment)
