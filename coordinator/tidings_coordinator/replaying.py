"""``tidings replay``: a real run once more on virtual time, everything in its turn."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from tidings.errors import UserError
from tidings.runtime.plan import NodePlan, Turn
from tidings.runtime.simulation import simulate
from tidings_coordinator.experiment.load import load
from tidings_coordinator.planning import plan
from tidings_coordinator.records.directory import read_json, read_lines

#: events after which a node goes on in another process or round
_BREAKS = ("died", "restored", "rejoined", "resumed")


#: faults that change nothing but when messages arrive, and whether: the recorded order says that
_ONLY_WHEN = frozenset(
    {
        "link.cut",
        "link.duplicate",
        "link.flap",
        "link.loss",
        "link.reorder",
        "link.reset",
        "link.scale",
        "link.shape",
        "link.trace",
        "mark",
        "msg.delay",
        "msg.drop",
        "msg.duplicate",
        "msg.replay",
        "msg.truncate",
        "net.partition",
        "node.clock",
        "node.isolate",
        "node.pause",
        "node.slow",
        "node.stress",
        "store.fail",
    }
)
#: those that a node does to itself on entering a round, and which a replay does again
_IN_ROUNDS = ("byz.", "data.", "graph.")


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

    The same random streams, and every call of the protocols' returns in its turn, with what it had
    returned. UserError where a run cannot be replayed, RunError where the recorded order makes no
    sense.
    """
    result, environment = read_json(path, "result.json"), read_json(path, "environment.json")
    if result is None or environment is None:
        raise UserError(f"{path} holds no run that has ended")
    planned = plan(load(path / "resolved.yaml"), environment["run_id"])
    events = list(read_lines(path, "events"))
    _check(path, result, events)
    _check_faults(path, planned.nodes)
    scripts: dict[int, list[Turn]] = {node.node: [] for node in planned.nodes}
    for event in events:
        if event["event"] == "turn":
            scripts[event["node"]].append(Turn(**_fields(event)))
    if not any(scripts.values()):
        raise UserError(f"the run in {path} has recorded no order: set records.order in its file")
    torch.set_num_threads(1)
    done = simulate([_scripted(node, scripts[node.node]) for node in planned.nodes])
    now = tuple(final.weights_sha256.hex() for final in done.finals)
    return Replayed(tuple(result["weights_sha256"]), now)


def _scripted(node: NodePlan, script: Sequence[Turn]) -> NodePlan:
    again = tuple(armed for armed in node.faults if armed.fault["kind"] not in _ONLY_WHEN)
    quiet: dict[str, Any] = {"order": False, "heartbeat": None, "checkpoint": None}
    # in which turn each message is taken is known, so none has to be lost or wait elsewhere
    links = {target: replace(shape, loss=0.0) for target, shape in node.links.items()}
    quiet |= {"links": links, "mailbox_messages": sys.maxsize, "faults": again}
    return node.model_copy(update=quiet | {"script": tuple(script)})


def _check(path: Path, result: dict[str, Any], events: Sequence[dict[str, Any]]) -> None:
    """UserError for a run in which more than the order was left to chance."""
    if result["run"] != "completed":
        raise UserError(f"the run in {path} did not complete: {result['reason']}")
    if found := next((e["event"] for e in events if e["event"] in _BREAKS), None):
        raise UserError(f"the run in {path} has an event '{found}', which cannot be repeated")


def _check_faults(path: Path, nodes: Sequence[NodePlan]) -> None:
    """UserError for faults that change what nodes do, unless each node did it in its own round."""
    armed = [each for node in nodes for each in node.faults]
    exact = {a.event for a in armed if a.at_round is not None and a.for_s is None}
    exact -= {a.event for a in armed if a.at_round is None or a.for_s is not None}
    for line in read_lines(path, "faults"):
        fault, event = line["fault"], line["event"]
        if fault not in _ONLY_WHEN and not (fault.startswith(_IN_ROUNDS) and event in exact):
            raise UserError(
                f"the fault '{event}' ({fault}) struck the run in {path} at a moment or in a way "
                "that cannot be repeated"
            )


def _fields(event: dict[str, Any]) -> dict[str, Any]:
    fields = event["fields"]
    return dict(json.loads(fields) if isinstance(fields, str) else fields)
