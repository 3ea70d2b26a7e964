"""``tidings resume``: a run that was interrupted goes on from its checkpoints."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from tidings.errors import UserError
from tidings.runtime import checkpoint as files
from tidings.runtime.checkpoint import Checkpoint
from tidings.runtime.parts import Parts
from tidings_coordinator.control.watch import Watcher
from tidings_coordinator.experiment.load import load
from tidings_coordinator.planning import CHECKPOINTS, RunPlan, plan
from tidings_coordinator.records.directory import RunDirectory, read_json
from tidings_coordinator.records.standing import RESUMED
from tidings_coordinator.running import Outcome, carry_out


@dataclass(frozen=True)
class _Point:
    """Where one node goes on."""

    round: int
    time_s: float
    incarnation: int


def resume(path: Path, watcher: Watcher) -> Outcome:
    """Go on with the run in a directory, into the same directory.

    All nodes of a synchronous protocol go on from the last round of which every node has a sound
    checkpoint, others each from its own last one. UserError where there is nothing to go on from.
    """
    found = read_json(path, "result.json")
    if found is not None and found["run"] == "completed":
        raise UserError(f"the run in {path} has completed: there is nothing to resume")
    run = _planned(path)
    with RunDirectory.reopen(path) as directory:
        points = _points(run, path)
        nodes = tuple(
            each.model_copy(
                update={
                    "restore": points[each.node].round,
                    "incarnation": points[each.node].incarnation,
                    "resumed": True,
                }
            )
            for each in run.nodes
        )
        start_s = max(point.time_s for point in points.values())
        directory.event(
            RESUMED,
            start_s,
            rounds={str(node): point.round for node, point in points.items()},
            lines=directory.lengths,
        )
        watcher.say(f"resuming after round {min(point.round for point in points.values())}")
        resumed = replace(run, nodes=nodes, start_s=start_s)
        return Outcome(path, carry_out(resumed, directory, watcher))


def _planned(path: Path) -> RunPlan:
    file = path / "resolved.yaml"
    run_id = (read_json(path, "environment.json") or {}).get("run_id")
    if not file.exists() or run_id is None:
        raise UserError(f"{path} holds no run that could be resumed")
    experiment = load(file)
    if experiment.checkpoint.every is None:
        raise UserError(
            f"the run in {path} has written no checkpoints: set checkpoint.every in its file"
        )
    if experiment.launcher.delegate() is not None:
        raise UserError(f"a run of the launcher '{experiment.launcher.kind}' cannot be resumed")
    return plan(experiment, run_id).kept_in(path)


def _points(run: RunPlan, path: Path) -> dict[int, _Point]:
    """Where each node goes on."""
    rounds = {
        each.node: files.rounds(files.folder_of(path / CHECKPOINTS, each.node))
        for each in run.nodes
    }
    if missing := [str(node) for node, have in rounds.items() if not have]:
        raise UserError(
            f"nodes {', '.join(missing)} have no checkpoint in {path / CHECKPOINTS}: "
            "the run was interrupted too early, start it anew"
        )
    parts = Parts.of(run.nodes[0])

    def sound(node: int, at: int) -> Checkpoint | None:
        store = files.folder_of(path / CHECKPOINTS, node)
        return files.load(store, parts.codec.digest, parts.codec.dim, at)[0]

    if run.experiment.protocol.synchronous:
        common = sorted(set.intersection(*map(set, rounds.values())), reverse=True)
        for round_ in common:
            all_found = {node: sound(node, round_) for node in rounds}
            if all(all_found.values()):
                return {node: _point(found) for node, found in all_found.items() if found}
        raise UserError(
            f"there is no round of which every node has a sound checkpoint in {path / CHECKPOINTS}"
        )
    points = {}
    for node, have in rounds.items():
        latest = next(filter(None, (sound(node, at) for at in reversed(have))), None)
        if latest is None:
            raise UserError(f"node {node} has no sound checkpoint in {path / CHECKPOINTS}")
        points[node] = _point(latest)
    return points


def _point(found: Checkpoint) -> _Point:
    return _Point(found.round, found.time_s, found.node["incarnation"])
