"""Heartbeats between neighbours, and how long nodes go on without a coordinator, as planned."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidings.errors import ConfigError
from tidings.faults.coord_isolate import CoordIsolate
from tidings.runtime.plan import HeartbeatPlan
from tidings_coordinator.experiment.model import Experiment, Wait

if TYPE_CHECKING:
    from tidings_coordinator.planning import RunPlan

#: wall seconds in which a coordinator that is back is found
_FIND_S = 60.0


def heartbeat(wait: Wait) -> HeartbeatPlan | None:
    """When neighbours say that they are there, and when they are suspected; None for never."""
    if wait.heartbeat is None or wait.silence_s is None:
        return None
    return HeartbeatPlan(every_s=float(wait.heartbeat), suspect_after_s=wait.silence_s)


def grace_s(experiment: Experiment) -> float:
    """Wall seconds for which nodes go on without a coordinator: longer than any fault takes it."""
    events = [e for e in experiment.faults if isinstance(e.fault, CoordIsolate)]
    away_s = max((event.lasts_s or 0.0 for event in events), default=0.0)
    needed_s = away_s * experiment.network.time_scale + _FIND_S if events else 0.0
    return max(experiment.launcher.grace_s, needed_s)


def check(run: RunPlan) -> None:
    """ConfigError where nodes could be taken for dead while a message of theirs is on its way."""
    asked, codec = run.nodes[0].heartbeat, run.parts.codec
    if asked is None:
        return
    longest = max((codec.expected_bytes(kind) for kind in codec.types), default=0.0)
    for (source, target), shape in run.links.items():
        rate = min(
            shape.rate_bit_per_s,
            run.nodes[source].nic.egress_bit_per_s / len(run.nodes[source].links),
        )
        way_s = (shape.delay_ns + shape.jitter_ns) / 1e9 + 8 * longest / rate
        if way_s + asked.every_s > asked.suspect_after_s:
            raise ConfigError(
                f"a message takes {way_s:.3g} s from node {source} to node {target} and a "
                f"heartbeat may wait behind it: suspect_after must be above "
                f"{way_s + asked.every_s:.3g} s",
                ("wait", "suspect_after" if run.experiment.wait.suspect_after else "heartbeat"),
            )
