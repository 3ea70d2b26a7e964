"""Runs in virtual time in which something breaks, and what their records say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.runs import lines
from tidings_coordinator.control.watch import Watcher
from tidings_coordinator.experiment.load import loads
from tidings_coordinator.running import Outcome, run_experiment

BASE = """
name: faulty
nodes: 6
topology: {kind: ring}
network: {rate: 20Mbit/s, delay: 5ms}
problem: {kind: quadratic, dim: 200}
protocol: {kind: d_psgd, lr: 0.05}
compute: {simulated: 1ms}
wait: {for: all, timeout: 100ms}
stop: {rounds: 30}
evaluate: {every: 5}
launcher: {kind: simulator}
monitor: {serve: false}
checkpoint: {}
"""


def ran(path: Path, *events: str, **changed: str) -> tuple[Outcome, list[dict[str, Any]]]:
    """Run with those events; the outcome, and the lines of faults.jsonl."""
    text = BASE
    for key, value in changed.items():
        text = "\n".join(
            f"{key}: {value}" if line.startswith(f"{key}:") else line for line in text.split("\n")
        )
    text += "faults:\n" + "".join(f"  - {event}\n" for event in events)
    outcome = run_experiment(loads(text, "f.yaml"), text, path / "run", Watcher(), path)
    assert outcome.result["run"] == "completed", outcome.result["reason"]
    return outcome, lines(outcome.directory, "faults")


def links(outcome: Outcome) -> dict[tuple[int, int], dict[str, Any]]:
    return {(line["source"], line["target"]): line for line in lines(outcome.directory, "links")}


def refused(outcome: Outcome, node: int) -> dict[str, int]:
    return lines(outcome.directory, "nodes")[node]["refused"]


def arrived(outcome: Outcome, source: int, target: int) -> int:
    return lines(outcome.directory, "nodes")[target]["arrivals"][str(source)]["messages"]


def states(found: list[dict[str, Any]]) -> list[str]:
    return [line["state"] for line in found]
