"""Run directories made by hand, whole and broken, and how to read the pages made of them."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tidings.v1 import records_pb2 as records
from tidings_coordinator.records.directory import RunDirectory
from tidings_coordinator.topology import layouts

RESULT: dict[str, Any] = {
    "run": "completed",
    "faults": "all",
    "checks": "pass",
    "reason": None,
    "time_s": 4.0,
    "wall_s": 9.5,
    "control_plane_bytes": 5000,
}
PROBE = {
    "source": 0,
    "target": 1,
    "links_alike": 8,
    "rate_asked_bit_per_s": 20e6,
    "rate_achieved_bit_per_s": 15.3e6,
    "rate_error": -0.234,
    "round_trip_asked_s": 0.04,
    "round_trip_achieved_s": 0.0411,
    "delay_error_s": 0.00055,
    "within_tolerance": False,
    "error": "",
}
FIDELITY: dict[str, Any] = {
    "verdict": "pass",
    "problems": [],
    "tolerance": {"rate": 0.05, "delay_s": 0.002},
    "lag_p50_s": 0.0006,
    "lag_p99_s": 0.01,
    "loss": {"messages": 2400, "expected": 24.0, "lost": 31, "surprise": 1.44},
    "probes": [PROBE],
}


def make(
    path: Path,
    means: list[float],
    *,
    metric: str = "accuracy",
    nodes: int = 4,
    settings: dict[str, Any] | None = None,
    graph: dict[str, Any] | None = None,
) -> RunDirectory:
    """A run that has got as far as its series: a point for each mean, every 10 rounds and 1 s."""
    directory = RunDirectory.create(path)
    resolved = {
        "name": "made",
        "seed": 7,
        "nodes": nodes,
        "topology": {"kind": "ring"},
        "network": {"rate": "20Mbit/s", "delay": "20ms", "loss": "0%"},
        "problem": {"kind": "mnist_5k", "model": "mlp"},
        "protocol": {"kind": "d_psgd", "lr": 0.1},
        "target": {"accuracy": "80%", "loss": None},
        "launcher": {"kind": "local"},
    } | (settings or {})
    directory.write("experiment.yaml", "name: made\n")
    directory.write("resolved.yaml", yaml.safe_dump(resolved, sort_keys=False))
    drawn = {
        "nodes": nodes,
        "synchronous": True,
        "byzantine": [],
        "layout": layouts.circle(nodes).tolist(),
        "arcs": [[i, (i + d) % nodes] for i in range(nodes) for d in (1, -1)],
    }
    directory.write_json("graph.json", drawn | (graph or {}))
    for number, mean in enumerate(means):
        for node in range(nodes):
            directory.evaluation(
                records.Evaluation(
                    node=node,
                    round=10 * number,
                    time_s=float(number),
                    bytes=records.Bytes(payload=900_000 * number, header=100_000 * number),
                    messages=20 * number,
                    metrics={metric: mean + 0.01 * node},
                    sketch=np.full(4, 0.1 * node, dtype="<f4").tobytes(),
                )
            )
    return directory


def finish(directory: RunDirectory, nodes: int = 4, **changes: Any) -> None:
    """What a run writes when it ends."""
    for node in range(nodes):
        links = [
            records.LinkRecord(
                source=node,
                target=(node + step) % nodes,
                bytes=records.Bytes(payload=1_000_000 * (node + 1), header=1000, control=500),
                messages=20,
                lost_messages=1,
                lost_bytes=50_000,
            )
            for step in (1, -1)
        ]
        reception = records.Reception(refused={"late": 2 * node})
        directory.final(records.Final(node=node, links=links, reception=reception))
    directory.write_json("fidelity.json", FIDELITY)
    directory.write_json("result.json", RESULT | changes)
    directory.close()


def fault(
    directory: RunDirectory,
    event: str,
    state: str,
    time_s: float,
    *targets: str,
    kind: str = "net.partition",
    occurrence: int = 0,
    round_: int | None = None,
    **detail: Any,
) -> None:
    """A line of faults.jsonl for each target."""
    for target in targets:
        directory.append(
            "faults",
            {
                "event": event,
                "occurrence": occurrence,
                "fault": kind,
                "target": target,
                "state": state,
                "time_s": time_s,
                "utc": "2026-11-25T19:00:00.000+00:00",
                "round": round_,
                "asked": {"time_s": 1.0},
                "detail": detail,
            },
        )


def link(source: int, target: int, messages: int, **more: Any) -> dict[str, Any]:
    """A line of links.jsonl; a message has 10 bytes."""
    counted = {key: {"messages": n, "bytes": 10 * n} for key, n in more.items() if key != "faulted"}
    faulted = {
        event: {"messages": n, "bytes": 10 * n} for event, n in more.get("faulted", {}).items()
    }
    none = {"messages": 0, "bytes": 0}
    return {
        "source": source,
        "target": target,
        "bytes": {"total": 10 * messages},
        "messages": messages,
        "lost": none,
        "undeliverable": none,
        "duplicated": none,
        "reconnects": 0,
        "faulted": faulted,
    } | counted


def closing(node: int, arrivals: dict[int, int], **refused: int) -> dict[str, Any]:
    """A line of nodes.jsonl; a message has 10 bytes."""
    return {
        "node": node,
        "weights_sha256": "",
        "messages_received": sum(arrivals.values()),
        "arrivals": {str(s): {"bytes": 10 * n, "messages": n} for s, n in arrivals.items()},
        "refused": refused,
        "counters": {},
    }


class PageText(HTMLParser):
    """What is visible, and every tag with its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._hidden = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._hidden = tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self._hidden = False

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.words.append(data)


def seen(page: Path) -> str:
    """The page's text with single spaces."""
    parser = PageText()
    parser.feed(page.read_text(encoding="utf-8"))
    return re.sub(r"\s+", " ", " ".join(parser.words))
