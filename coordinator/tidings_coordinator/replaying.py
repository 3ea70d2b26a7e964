"""``tidings replay``: a real run once more on virtual time, every message taken in its turn."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tidings.errors import UserError
from tidings.runtime.plan import NodePlan, Taken
from tidings.runtime.simulation import simulate
from tidings_coordinator.experiment.load import load
from tidings_coordinator.planning import plan
from tidings_coordinator.records.directory import read_json, read_lines

#: events after which a node no longer does the same in the same order of messages
_BREAKS = ("died", "restored", "rejoined", "resumed")


@dataclass(frozen=True)
class Replayed:
    """The final weights of both, as sha256 by node in node order."""

    recorded: tuple[str, ...]
    replayed: tuple[str, ...]

    @property
    def differ(self) -> tuple[int, ...]:
        """The nodes whose weights are not the same."""
        pairs = enumerate(zip(self.recorded, self.replayed, strict=True))
        return tuple(node for node, (was, now) in pairs if was != now)


def replay(path: Path) -> Replayed:
    """Do a run again from what it has recorded (``records.order``).

    The same random streams, the same losses, and every wait ends with the messages that it ended
    with; what depends on time and is no wait for messages is not repeated. UserError where a run
    cannot be replayed, RunError where the recorded order makes no sense.
    """
    result, environment = read_json(path, "result.json"), read_json(path, "environment.json")
    if result is None or environment is None:
        raise UserError(f"{path} holds no run that has ended")
    events = list(read_lines(path, "events"))
    faults, nodes = list(read_lines(path, "faults")), list(read_lines(path, "nodes"))
    _check(path, result, events, faults, nodes)
    planned = plan(load(path / "resolved.yaml"), environment["run_id"])
    scripts: dict[int, list[Taken]] = {node.node: [] for node in planned.nodes}
    for event in events:
        if event["event"] == "took":
            scripts[event["node"]].append(Taken(time_s=event["time_s"], **_fields(event)))
    if not any(scripts.values()):
        raise UserError(f"the run in {path} has recorded no order: set records.order in its file")
    torch.set_num_threads(1)
    done = simulate([_scripted(node, scripts[node.node]) for node in planned.nodes])
    now = tuple(final.weights_sha256.hex() for final in done.finals)
    return Replayed(tuple(result["weights_sha256"]), now)


def _scripted(node: NodePlan, script: Sequence[Taken]) -> NodePlan:
    quiet = {"order": False, "heartbeat": None, "checkpoint": None, "faults": ()}
    return node.model_copy(update=quiet | {"script": tuple(script)})


def _check(
    path: Path,
    result: dict[str, Any],
    events: Sequence[dict[str, Any]],
    faults: Sequence[dict[str, Any]],
    nodes: Sequence[dict[str, Any]],
) -> None:
    """UserError for a run in which more than the order of messages was left to chance."""
    if result["run"] != "completed" or result["reason"] is not None:
        raise UserError(
            f"the run in {path} did not end by its number of rounds: {result['reason']}"
        )
    if any(line["fault"] != "mark" for line in faults):
        raise UserError(f"faults struck the run in {path} at moments that cannot be repeated")
    if found := next((e["event"] for e in events if e["event"] in _BREAKS), None):
        raise UserError(f"the run in {path} has an event '{found}', which cannot be repeated")
    if any(node["counters"].get("exchange_committed") for node in nodes):
        raise UserError(
            f"the nodes of {path} made atomic exchanges, whose order among a node's own steps is "
            "not recorded; what can be replayed are protocols that send messages"
        )


def _fields(event: dict[str, Any]) -> dict[str, Any]:
    fields = event["fields"]
    return dict(json.loads(fields) if isinstance(fields, str) else fields)
