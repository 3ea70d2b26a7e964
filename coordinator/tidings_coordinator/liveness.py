"""Heartbeats between neighbours, and how long nodes go on without a coordinator, as planned."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidings.errors import ConfigError
from tidings.faults.coord_crash import CoordCrash
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
    away_s = [
        float(event.fault.restart_after)
        if isinstance(event.fault, CoordCrash)
        else event.lasts_s or 0.0
        for event in experiment.faults
        if isinstance(event.fault, CoordCrash | CoordIsolate)
    ]
    if not away_s:
        return experiment.launcher.grace_s
    return max(experiment.launcher.grace_s, max(away_s) * experiment.network.time_scale + _FIND_S)


def check(run: RunPlan) -> None:
    """ConfigError where nodes, or a coordinator, would be looked for in the wrong place or time."""
    _check_port(run.experiment)
    _check_silence(run)


def _check_port(experiment: Experiment) -> None:
    """Nodes know the address of the coordinator's first port; with TLS they talk to the second."""
    crashes = any(isinstance(event.fault, CoordCrash) for event in experiment.faults)
    launcher = experiment.launcher
    tls = not launcher.virtual and experiment.security.on(launcher.host)
    if crashes and tls and launcher.port == 0:
        raise ConfigError(
            "'coord.crash' with TLS needs a port that the next coordinator can take: set it",
            ("launcher", "port"),
        )


def _check_silence(run: RunPlan) -> None:
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
