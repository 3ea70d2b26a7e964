"""The coordinator's web server beside real and simulated runs, and what it and the nodes export."""

from __future__ import annotations

import json
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.runs import DEADLINE_S, SMALL, finish, lines, result, started, tidings, wait_for_event
from support.streams import events
from support.warm import Command

pytestmark = pytest.mark.process

Labelled = tuple[str, frozenset[tuple[str, str]]]

#: slow enough to be looked at on the way
SLOW = ["--set", "compute.time=20ms", "--set", "stop.rounds=80"]

COST = {f"tidings_run_to_target_{unit}" for unit in ("bytes", "seconds", "rounds")}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


def completed(run: Command, out: Path) -> str:
    """Wait for a run to complete, over whatever network a busy machine gave it; what it said."""
    _, _, err = finish(run)
    assert result(out)["run"] == "completed", err
    return err


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


def samples(address: str) -> dict[Labelled, float]:
    """All samples of a target, by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(get(f"http://{address}/metrics"))
        for sample in family.samples
    }


def targets(out: Path) -> dict[str, str]:
    """Address by node, and that of the coordinator."""
    found = json.loads(get(wait_for_event(out, "discovery")[0]["url"]))
    return {each["labels"].get("node", "coordinator"): each["targets"][0] for each in found}


def scraped(out: Path, rounds: int, nodes: int) -> dict[str, dict[Labelled, float]]:
    """All targets' samples, once every node has completed that many rounds."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        assert time.monotonic() < deadline
        try:
            found = {name: samples(address) for name, address in targets(out).items()}
        except OSError:
            continue
        done = [each.get(("tidings_rounds_completed", frozenset()), -1) for each in found.values()]
        evaluated = [("tidings_evaluated_round", frozenset()) in each for each in found.values()]
        if len(found) == nodes + 1 and sum(evaluated) == nodes and sorted(done)[1] >= rounds:
            return found
        time.sleep(0.01)


def names(found: dict[Labelled, float]) -> set[Labelled]:
    return set(found)


def without_peers(found: dict[Labelled, float]) -> set[Labelled]:
    """The label sets with their peers taken away."""
    return {(name, frozenset(p for p in pairs if p[0] != "peer")) for name, pairs in found}


def test_labels_grow_with_neighbours_and_with_nothing_else(file: Path, tmp_path: Path) -> None:
    early, late = {}, {}
    for topology in ("ring", "complete"):
        out = tmp_path / topology
        shape = ["--set", f"topology.kind={topology}", "--set", "nodes=5"]
        with started("run", str(file), "--out", str(out), "--quiet", *SLOW, *shape) as run:
            early[topology] = scraped(out, 5, nodes=5)
            late[topology] = scraped(out, 50, nodes=5)
            completed(run, out)
    for topology, degree in (("ring", 2), ("complete", 4)):
        for target in ("0", "1", "2", "3", "4", "coordinator"):
            before, after = early[topology][target], late[topology][target]
            # the cost of the target is there once it has been reached
            assert names(before) <= names(after)
            assert {name for name, _ in names(after) - names(before)} <= COST
            peers = {dict(pairs)["peer"] for _, pairs in after if "peer" in dict(pairs)}
            assert len(peers) == (0 if target == "coordinator" else degree)
    for target in ("0", "coordinator"):
        ring, complete = late["ring"][target], late["complete"][target]
        if target == "coordinator":
            # what it says of the topology is the value of a label
            ring = {key: value for key, value in ring.items() if key[0] != "tidings_run_info"}
            complete = {
                key: value for key, value in complete.items() if key[0] != "tidings_run_info"
            }
            assert names(ring) == names(complete)
        assert without_peers(ring) == without_peers(complete)


def test_what_a_node_exports_fits_what_was_asked(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with started("run", str(file), "--out", str(out), "--quiet", *SLOW) as run:
        found = scraped(out, 10, nodes=4)
        completed(run, out)
    node = found["0"]

    def value(name: str, **labels: str) -> float:
        return node[name, frozenset(labels.items())]

    assert value("tidings_link_asked_bytes_per_second", peer="1") == 50e6 / 8
    assert value("tidings_link_asked_delay_seconds", peer="1") == 0.002
    assert value("tidings_node_honest") == 1
    assert value("tidings_model_parameters") == 64 * 16 + 16 + 16 * 10 + 10
    states = [value("tidings_node_state", state=s) for s in ("computing", "waiting", "finished")]
    assert sorted(states) == [0, 0, 1]
    # synchronous nodes wait for each other, so nothing that arrives is older than a round
    assert value("tidings_staleness_rounds_bucket", le="1.0") == value(
        "tidings_staleness_rounds_count"
    )
    assert value("tidings_staleness_rounds_count") > 10
    own = found["coordinator"]
    assert own["tidings_run_target", frozenset({("metric", "accuracy")})] == 0.3
    assert own["tidings_run_rounds_asked", frozenset()] == 80
    assert own["tidings_run_phase", frozenset({("phase", "running")})] == 1
    by_state = {k: v for k, v in own.items() if k[0] == "tidings_run_nodes"}
    assert sum(by_state.values()) == 4


@pytest.mark.parametrize("command", ["run", "simulate"])
def test_the_stream_tells_what_the_records_say(file: Path, tmp_path: Path, command: str) -> None:
    out = tmp_path / "run"
    with started(command, str(file), "--out", str(out), *SLOW) as run:
        page = wait_for_event(out, "discovery")[0]["page"]
        told = list(events(page + "events"))
        err = completed(run, out)
        assert f"live page: {page}" in err
    kinds = [kind for kind, _ in told]
    assert kinds[0] == "state"
    assert {"view", "point", "end"} <= set(kinds)
    found = result(out)
    assert told[-1][1]["run"] == "completed"
    points = [*told[0][1]["points"], *(data for kind, data in told if kind == "point")]
    assert len(points) == len({row["round"] for row in lines(out, "series")})
    assert points[-1]["bytes"] == found["bytes"]["total"]
    assert points[-1]["cost"] == found["to_target"]
    last = [data for kind, data in told if kind == "view"][-1]
    assert sum(node[2] for node in last["nodes"]) == found["bytes"]["total"]
    assert sum(last["loads"]) == found["bytes"]["total"]
    assert {node[0] for node in last["nodes"]} == {"finished"}


def test_a_port_that_is_taken_is_refused_before_anything_starts(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = tidings("run", str(file), "--out", str(out), "--set", f"monitor.port={port}")
    assert done.returncode == 2
    assert f"cannot serve the live page on 127.0.0.1:{port}" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not out.exists()


def test_no_server_and_no_page_where_they_are_not_wanted(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "none"
    done = tidings("simulate", str(file), "--out", str(out), "--set", "monitor.serve=false")
    assert done.returncode == 0
    assert "live page" not in done.stderr
    assert "discovery" not in [event["event"] for event in lines(out, "events")]
    out = tmp_path / "no-page"
    plain = ["--set", "monitor.page=false"]
    with started("run", str(file), "--out", str(out), *SLOW, *plain) as run:
        url = wait_for_event(out, "discovery")[0]["url"]
        for path in ("/", "/events"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                get(url.replace("/sd", path))
        assert "tidings_run_info" in get(url.replace("/sd", "/metrics"))
        err = completed(run, out)
        assert "live page" not in err


def test_a_run_waits_for_its_last_scrape_but_not_for_ever(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    linger = ["--set", "metrics.linger=60s", "--set", "stop.rounds=5"]
    with started("run", str(file), "--out", str(out), "--quiet", *linger) as run:
        wait_for_event(out, "over")
        seen: dict[str, Any] = {}
        deadline = time.monotonic() + DEADLINE_S
        while run.poll() is None:
            assert time.monotonic() < deadline
            try:
                for name, address in targets(out).items():
                    seen[name] = samples(address)
            except OSError:
                # they leave when they have been asked twice
                time.sleep(0.01)
        completed(run, out)
    assert result(out)["wall_s"] < 60
    sent = sum(
        value
        for name, found in seen.items()
        if name != "coordinator"
        for (metric, _), value in found.items()
        if metric == "tidings_link_sent_bytes_total"
    )
    assert sent == result(out)["bytes"]["total"]
    verdict = ("tidings_run_verdict", frozenset({("verdict", "completed")}))
    assert seen["coordinator"][verdict] == 1
