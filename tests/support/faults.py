"""Runs with fault events."""

from __future__ import annotations

import pytest

from tidings.errors import UserError
from tidings.runtime.plan import derive_rng
from tidings_coordinator.experiment.load import loads
from tidings_coordinator.faults.firing import Firing
from tidings_coordinator.faults.resolve import resolve
from tidings_coordinator.planning import RunPlan, plan

BASE = """
nodes: 8
topology: {kind: ring}
network: {rate: 20Mbit/s, groups: {left: ["0..3"]}}
problem: {kind: quadratic, dim: 8}
protocol: {kind: d_psgd, lr: 0.1}
stop: {rounds: 100, time: 60s}
launcher: {kind: simulator}
"""


def planned(*events: str, base: str = BASE) -> RunPlan:
    """A run with those events."""
    text = base + "faults:\n" + "".join(f"  - {event}\n" for event in events)
    return plan(loads(text, "f.yaml"), "test")


def fired(*events: str, base: str = BASE) -> tuple[Firing, ...]:
    """What events resolve to, whatever the launcher can do."""
    text = base + "faults:\n" + "".join(f"  - {event}\n" for event in events)
    experiment = loads(text, "f.yaml")
    rng = derive_rng(experiment.seed, "topology")
    return resolve(experiment, experiment.topology.schedule(experiment.nodes, rng))


def refusal(*events: str, base: str = BASE) -> str:
    """What is said about events that make no sense."""
    with pytest.raises(UserError) as caught:
        planned(*events, base=base)
    return str(caught.value)
