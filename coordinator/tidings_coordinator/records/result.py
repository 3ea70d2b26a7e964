"""``result.json``: what a run came to. Other tools read it; its keys stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tidings.v1 import records_pb2 as records
from tidings_coordinator.checks.base import judge_all
from tidings_coordinator.faults.verdict import applied, verdict
from tidings_coordinator.planning import RunPlan
from tidings_coordinator.records.directory import bytes_line, read_lines
from tidings_coordinator.records.reading import read
from tidings_coordinator.records.series import Goal, cost_to

Verdict = Literal["completed", "failed", "aborted"]


@dataclass(frozen=True)
class Ending:
    """How a run ended, simulated or real."""

    run: Verdict
    #: why it was stopped or what went wrong; None where all nodes finished by themselves
    reason: str | None
    finals: Sequence[records.Final]
    time_s: float
    wall_s: float
    fidelity: dict[str, Any]
    #: bytes between coordinator and nodes; no part of ``bytes``
    control_plane_bytes: int = 0
    #: of the simulator: a hash over every delivery
    trace_hash: str | None = None
    #: whether the nodes' connections were protected, and who was turned away
    security: dict[str, Any] = field(default_factory=lambda: {"tls": False, "refused": {}})


def goal_of(run: RunPlan) -> Goal | None:
    """The experiment's target; an accuracy to stop at is one too."""
    target, stop = run.experiment.target, run.experiment.stop
    if target is not None and target.accuracy is not None:
        return Goal("accuracy", float(target.accuracy))
    if target is not None and target.loss is not None:
        return Goal("loss", target.loss)
    return Goal("accuracy", float(stop.accuracy)) if stop.accuracy is not None else None


def result(run: RunPlan, ending: Ending, directory: Path) -> dict[str, Any]:
    """The verdicts, the totals and the cost to target.

    ``faults``: all that were asked for were applied, some, or none. ``checks``: fail where the
    network was not what was asked for or a check of ``expect`` failed, else unknown where one of
    them is (the network: where it was not measured), else pass. Each check of ``expect`` has its
    own verdict (pass, fail, unknown), what was measured and what was asked, and a sentence.
    """
    found = read(directory)
    points = found.points
    hit = applied(run.firings, read_lines(directory, "faults"))
    expect = judge_all(run.experiment.expect, found)
    last = points[-1] if points else None
    goal = goal_of(run)
    links = [link for final in ending.finals for link in final.links]
    totals, messages = (
        bytes_line(_sum([link.bytes for link in links])),
        sum(link.messages for link in links),
    )
    if last is not None and len(ending.finals) < len(run.nodes):
        # some closing records are missing: the last evaluation is the better count
        totals, messages = last.bytes, last.messages
    digests = {final.node: final.weights_sha256.hex() for final in ending.finals}
    fidelity = ending.fidelity
    return {
        "run": ending.run,
        "faults": verdict(hit),
        "checks": _together([fidelity["verdict"], *(check["verdict"] for check in expect)]),
        "reason": ending.reason,
        "name": run.experiment.name,
        "run_id": run.run,
        "protocol": run.experiment.protocol.kind,
        "nodes": len(run.nodes),
        "seed": run.experiment.seed,
        "launcher": run.experiment.launcher.kind,
        "rounds": round(last.round, 3)
        if last and last.round % 1
        else int(last.round if last else 0),
        "time_s": ending.time_s,
        "wall_s": ending.wall_s,
        "bytes": totals,
        "control_plane_bytes": ending.control_plane_bytes,
        "messages": messages,
        "lost_messages": sum(link.lost_messages for link in links),
        "accuracy": _mean(last, "accuracy"),
        "loss": _mean(last, "loss"),
        "metrics": {name: spread.mean for name, spread in last.metrics.items()} if last else {},
        "consensus_distance": last.consensus_distance if last else None,
        "weights_sha256": [digests.get(node.node) for node in run.nodes],
        "trace_hash": ending.trace_hash,
        "fidelity": {
            name: fidelity[name]
            for name in (
                "verdict",
                "rate_error",
                "delay_error_s",
                "lag_p50_s",
                "lag_p99_s",
                "problems",
            )
        },
        "expect": expect,
        "faults_applied": hit,
        "target": None if goal is None else {goal.metric: goal.value},
        "security": ending.security,
        "to_target": None if goal is None else cost_to(goal, points),
    }


def _sum(counts: Sequence[records.Bytes]) -> records.Bytes:
    kinds = [field.name for field in records.Bytes.DESCRIPTOR.fields]
    return records.Bytes(**{kind: sum(getattr(count, kind) for count in counts) for kind in kinds})


def _together(verdicts: Sequence[str]) -> str:
    """The worst of some verdicts."""
    return next((worst for worst in ("fail", "unknown") if worst in verdicts), "pass")


def exit_code(found: Mapping[str, Any]) -> int:
    """What a command ends with, by the run's result.json.

    0 all is well; 1 the run failed, or its network was not what was asked for; 4 a fault was not
    applied as asked; 3 a check of ``expect`` failed or could not be judged; 130 aborted.
    """
    if found["run"] == "aborted":
        return 130
    if found["run"] != "completed" or found["fidelity"]["verdict"] == "fail":
        return 1
    if found["faults"] != "all":
        return 4
    return 3 if any(check["verdict"] != "pass" for check in found["expect"]) else 0


def _mean(point: Any, metric: str) -> float | None:
    spread = point.metrics.get(metric) if point else None
    return None if spread is None else spread.mean
