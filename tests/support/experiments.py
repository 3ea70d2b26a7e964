"""An experiment with faults that is simulated twice, and what must hold of it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import yaml

from support.runs import lines
from tidings_coordinator.control.watch import Watcher
from tidings_coordinator.experiment.load import loads
from tidings_coordinator.running import Outcome, run_experiment


def as_text(experiment: dict[str, Any]) -> str:
    """The experiment's file."""
    return yaml.safe_dump(experiment, sort_keys=False)


def ran(text: str, path: Path) -> Outcome:
    """One run in a folder."""
    return run_experiment(loads(text, "random.yaml"), text, path, Watcher(), path.parent)


def check(experiment: dict[str, Any]) -> None:
    """AssertionError where the run does not end, or ends differently twice, or has wrong books."""
    text = as_text(experiment)
    with tempfile.TemporaryDirectory() as folder:
        first = ran(text, Path(folder) / "first")
        second = ran(text, Path(folder) / "second")
        changes = lines(first.directory, "faults")
        nodes = {line["node"]: line for line in lines(first.directory, "nodes")}
        links = lines(first.directory, "links")
    assert first.result["run"] == "completed", first.result["reason"]
    assert first.result["trace_hash"] == second.result["trace_hash"]
    assert first.result["weights_sha256"] == second.result["weights_sha256"]
    _every_beginning_has_an_end(changes)
    _no_message_from_nowhere(links, nodes)


def _every_beginning_has_an_end(changes: list[dict[str, Any]]) -> None:
    """What has come has gone again at the end, but for the dead, and nothing goes twice."""
    open_: dict[tuple[str, int, str], int] = {}
    for line in changes:
        key = (line["event"], line["occurrence"], line["target"])
        if line["state"] == "active":
            open_[key] = open_.get(key, 0) + 1
        elif line["state"] == "recovered":
            assert open_.get(key, 0) > 0, line
            open_[key] = 0
    dead = {
        line["target"]
        for line in changes
        if line["fault"] == "node.crash" and line["state"] == "active"
    }
    left = [key for key, count in open_.items() if count and key[2].partition("->")[0] not in dead]
    lasting = {line["event"] for line in changes if line["fault"] not in ("mark", "node.crash")}
    assert not [key for key in left if key[0] in lasting]


def _no_message_from_nowhere(links: list[dict[str, Any]], nodes: dict[int, dict[str, Any]]) -> None:
    """No more arrives over a link than was handed to it, less what it and faults have lost."""
    for link in links:
        if link["target"] not in nodes:
            continue
        arrival = nodes[link["target"]]["arrivals"].get(str(link["source"]))
        if arrival is None:
            continue
        came = arrival["messages"] + arrival["refused"]["messages"]
        lost = link["lost"]["messages"] + sum(f["messages"] for f in link["faulted"].values())
        assert came <= link["messages"] + link["duplicated"]["messages"] - lost, link
