"""An observer that keeps everything, and ways to read what a simulated run left."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidings.runtime.observer import Observer
from tidings.runtime.simulation import Simulated
from tidings.v1 import control_pb2 as pb
from tidings.v1 import records_pb2 as records

Matrix = NDArray[np.float64]


@dataclass
class Recorder(Observer):
    """Keeps evaluations and events in the order in which they came."""

    rows: list[records.Evaluation] = field(default_factory=list)
    events: list[records.Event] = field(default_factory=list)
    faults: list[records.FaultChange] = field(default_factory=list)

    def evaluation(self, row: records.Evaluation) -> str | None:
        self.rows.append(row)
        return None

    def event(self, event: records.Event) -> None:
        self.events.append(event)

    def fault(self, change: records.FaultChange) -> None:
        self.faults.append(change)

    def take(self, message: pb.NodeMessage) -> None:
        """What a node would tell its coordinator."""
        if message.WhichOneof("kind") == "evaluation":
            self.evaluation(message.evaluation)
        elif message.WhichOneof("kind") == "fault":
            self.fault(message.fault)
        else:
            self.event(message.event)

    def named(self, name: str, node: int | None = None) -> list[dict[str, Any]]:
        """The fields of all events of a name, with ``node`` and ``time_s``, in order."""
        return [
            {"node": event.node, "time_s": event.time_s, **json.loads(event.fields)}
            for event in self.events
            if event.name == name and node in (None, event.node)
        ]

    def series(self, metric: str, node: int = 0) -> list[float]:
        """One metric of one node over its evaluations."""
        return [row.metrics[metric] for row in self.rows if row.node == node]


def models(result: Simulated) -> Matrix:
    """The final models as rows, (n, d) float64."""
    return np.stack([node.model.double().numpy() for node in result.nodes])


def refused(result: Simulated) -> Counter[str]:
    """What all living nodes refused or missed, by reason."""
    total: Counter[str] = Counter()
    for final in result.finals:
        total.update(final.reception.refused)
    return total


def counters(result: Simulated, name: str) -> list[int]:
    """One counter of every living node, in node order."""
    return [final.counters.get(name, 0) for final in result.finals]


def history(recorder: Recorder, name: str, nodes: int) -> Matrix:
    """A vector that every node logged once a round, as (rounds, nodes, d)."""
    by_node = [recorder.named(name, node) for node in range(nodes)]
    return np.array([[event["x"] for event in events] for events in by_node]).transpose(1, 0, 2)
