"""What the live page shows: the run as it stands, kept up to date and told to whoever watches."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Mapping
from typing import Any

from tidings_coordinator.control.watch import NodeView, RunView, Watcher
from tidings_coordinator.monitoring.curve import GrowingCurve
from tidings_coordinator.monitoring.stream import Hub
from tidings_coordinator.planning import RunPlan
from tidings_coordinator.records.series import Point
from tidings_coordinator.records.windows import DOWN

#: wall seconds between two updates, and between two that say what each link has carried
_SHOW_S, _LINKS_S = 0.25, 1.0
_MAX_EVENTS = 200
#: kinds of events that are counted by name
_MAX_NAMES = 50
#: what became of a run, as far as the page tells
_RESULT_KEYS = (
    "run", "checks", "reason", "time_s", "wall_s", "accuracy", "loss", "to_target", "fidelity",
    "expect",
)  # fmt: skip


class LiveRun(Watcher):
    """Watches a run and the lines that go into its directory.

    Called from the run's thread; what it costs does not depend on who reads.
    """

    def __init__(self, run: RunPlan, parts: list[str]) -> None:
        self._run = run
        self._arcs = sorted(run.links)
        self._facts = _facts(run, parts, self._arcs)
        self._events: deque[Mapping[str, Any]] = deque(maxlen=_MAX_EVENTS)
        self._shown_s = self._links_s = -math.inf
        self._now: dict[str, Any] = {}
        self._loads: list[int] = [0] * len(self._arcs)
        #: bytes of each link by source and target, from the closing records
        self._closing: dict[int, dict[int, int]] = {}
        self.began_s = time.time()
        self.curve = GrowingCurve(run)
        self.view = RunView(
            run.experiment.name,
            nodes={node.node: NodeView() for node in run.nodes},
            honest=run.honest,
        )
        #: how often each kind of event has happened
        self.happened: Counter[str] = Counter()
        #: by event and kind of fault: the targets on which it holds now
        self.faults: dict[tuple[str, str], set[str]] = {}
        #: result.json, once there is one
        self.result: Mapping[str, Any] | None = None
        self.hub = Hub(self._snapshot)

    # -- the run's side ------------------------------------------------------------------------

    def show(self, view: RunView) -> None:
        now = time.monotonic()
        news = view.phase != self._now.get("phase")
        self.view = view
        if now < self._shown_s + _SHOW_S and not news:
            return
        self._shown_s = now
        with self.hub.lock:
            self._now = _now(view)
            message = self._now
            if now >= self._links_s + _LINKS_S or news:
                self._links_s = now
                self._loads = [
                    view.nodes[source].link_bytes.get(target, 0) for source, target in self._arcs
                ]
                message = self._now | {"loads": self._loads}
            self.hub.publish("view", message)

    def say(self, text: str) -> None:
        self._event({"time_s": self.view.time_s, "node": None, "event": "notice", "text": text})

    def line(self, name: str, line: Mapping[str, Any]) -> None:
        """A line was added to ``name``.jsonl of the run."""
        if name == "events":
            self._event(line)
        elif name == "series":
            with self.hub.lock:
                for point in self.curve.add(dict(line)):
                    self.hub.publish("point", _point(point) | {"cost": self.curve.cost})
        elif name == "faults":
            self._fault(line)
        elif name == "links":
            self._closing.setdefault(line["source"], {})[line["target"]] = line["bytes"]["total"]

    def _fault(self, line: Mapping[str, Any]) -> None:
        """A fault has come to hold on a target, or has ceased to, or could not be applied."""
        event, fault, state = (str(line[key]) for key in ("event", "fault", "state"))
        with self.hub.lock:
            held = self.faults.setdefault(self._known(event, fault), set())
            key = f"{event} {line['target']} {line.get('occurrence')}"
            (held.add if state == "active" else held.discard)(key)
        if fault in DOWN and state == "active":
            self._lost(int(line["target"]))
        target = str(line["target"])
        self._event(
            {
                "time_s": line["time_s"],
                "node": int(target) if target.isdecimal() else None,
                "event": f"fault {state}",
                "text": " ".join([event, f"({fault})", *([] if target.isdecimal() else [target])]),
            }
        )

    def _lost(self, node: int) -> None:
        with self.hub.lock:
            for point in self.curve.lost(node):
                self.hub.publish("point", _point(point) | {"cost": self.curve.cost})

    def _known(self, event: str, fault: str) -> tuple[str, str]:
        """The labels of a fault: so many are told apart, the rest are 'other'."""
        known = (event, fault) in self.faults or len(self.faults) < _MAX_NAMES
        return (event, fault) if known else ("other", "other")

    def finish(self, result: Mapping[str, Any]) -> None:
        """The run has come to its result."""
        # the closing records are exact, where heartbeats were the latest so far
        for number, sent in self._closing.items():
            node = self.view.nodes[number]
            node.link_bytes, node.sent_bytes = sent, sum(sent.values())
        self._shown_s = self._links_s = -math.inf
        self.show(self.view)
        with self.hub.lock:
            self.result = {key: result.get(key) for key in _RESULT_KEYS}
            self.hub.publish("end", self.result)

    def close(self) -> None:
        self.hub.close()

    def _event(self, line: Mapping[str, Any]) -> None:
        name = str(line["event"])
        known = name in self.happened or len(self.happened) < _MAX_NAMES
        with self.hub.lock:
            self.happened[name if known else "other"] += 1
            if name == "received":
                # with records.trace there is one for every message
                return
            self._events.append(line)
            self.hub.publish("happened", line)

    # -- the readers' side ---------------------------------------------------------------------

    def _snapshot(self) -> dict[str, Any]:
        return {
            "facts": self._facts,
            "view": self._now | {"loads": self._loads},
            "points": [_point(point) for point in self.curve.points],
            "cost": self.curve.cost,
            "events": list(self._events),
            "result": self.result,
        }


def _facts(run: RunPlan, parts: list[str], arcs: list[tuple[int, int]]) -> dict[str, Any]:
    """What does not change while the run goes on."""
    goal = GrowingCurve(run).goal
    cards = [node.nic.egress_bit_per_s for node in run.nodes]
    rates = [min(run.links[arc].rate_bit_per_s, cards[arc[0]]) for arc in arcs]
    return {
        "name": run.experiment.name,
        "run": run.run,
        "parts": parts,
        "layout": [[round(float(x), 4), round(float(y), 4)] for x, y in run.layout],
        "roles": run.roles,
        "byzantine": run.byzantine,
        "arcs": arcs,
        "rates": rates,
        "time_scale": run.experiment.network.time_scale,
        "goal": None if goal is None else {"metric": goal.metric, "value": goal.value},
    }


def _now(view: RunView) -> dict[str, Any]:
    return {
        "phase": view.phase,
        "time_s": round(view.time_s, 3),
        "rounds": view.target_rounds,
        "control_bytes": view.control_bytes,
        "nodes": [
            [
                node.state,
                node.round,
                node.sent_bytes,
                node.accuracy,
                node.loss,
                node.waits_for if node.state == "waiting" else "",
            ]
            for _, node in sorted(view.nodes.items())
        ],
    }


def _point(point: Point) -> dict[str, Any]:
    return {
        "round": point.round,
        "time_s": point.time_s,
        "bytes": point.bytes["total"],
        "metrics": {
            name: [spread.mean, spread.low, spread.high] for name, spread in point.metrics.items()
        },
        "consensus_distance": point.consensus_distance,
    }
