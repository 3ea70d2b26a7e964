"""What was recorded of a run is done again, turn by turn, and ends with the same weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.runs import lines

from tidings.errors import RunError, UserError
from tidings_coordinator.control.watch import Watcher
from tidings_coordinator.experiment.load import loads
from tidings_coordinator.replaying import Replayed, replay
from tidings_coordinator.running import run_experiment

pytestmark = pytest.mark.sim

AD_PSGD: dict[str, Any] = {"kind": "ad_psgd", "lr": 0.1}
DADAO: dict[str, Any] = {"kind": "dadao", "unit": "5ms"}
A2CID2: dict[str, Any] = {"kind": "a2cid2", "lr": 0.1, "unit": "5ms", "momentum": 0.5}
FED_ASYNC: dict[str, Any] = {"kind": "fed_async", "lr": 0.1}
OTHERS: list[tuple[dict[str, Any], str]] = [
    (FED_ASYNC, "star"),
    ({"kind": "fed_fix", "lr": 0.1, "window": "10ms"}, "star"),
    ({"kind": "fed_avg", "lr": 0.1}, "star"),
    ({"kind": "d_psgd", "lr": 0.1}, "ring"),
    ({"kind": "choco_sgd", "lr": 0.1}, "ring"),
]
#: faults that change when messages arrive, and whether
TIMING: list[dict[str, Any]] = [
    {"id": "lossy", "fault": "link.loss", "on": "all", "with": {"p": 0.2}, "at": "20ms"},
    {"id": "twice", "fault": "link.duplicate", "on": "all", "with": {"p": 0.3}, "at": "10ms"},
    {"id": "old", "fault": "msg.replay", "on": "all", "with": {"p": 0.3}, "at": "10ms"},
    {"id": "split", "fault": "net.partition", "with": {"shape": "halves"}, "at": "40ms"},
    {"id": "slow", "fault": "node.slow", "on": 2, "with": {"factor": 5.0}, "at": "10ms"},
    {"id": "wrong", "fault": "node.clock", "on": 1, "with": {"drift_ppm": 90000.0}, "at": "30ms"},
    {"id": "still", "fault": "node.pause", "on": 3, "at": "50ms"},
]


def recorded(path: Path, protocol: dict[str, Any], topology: str = "ring", **changes: Any) -> Path:
    """A run of five nodes, its order written down."""
    experiment = {
        "name": "order",
        "nodes": 5,
        "topology": topology,
        "network": {"rate": "20Mbit/s", "delay": "1ms", "loss": 0.03},
        "problem": {"kind": "quadratic", "dim": 20},
        "protocol": protocol,
        "compute": {"time": "2ms", "slow": [{"on": [2], "factor": 3}]},
        "wait": {"timeout": "50ms"},
        "stop": {"rounds": 25, "time": "20s"},
        "records": {"order": True},
        "launcher": {"kind": "simulator", "tie_seed": 1},
        "monitor": {"serve": False},
    }
    text = yaml.safe_dump(experiment | changes, sort_keys=False)
    done = run_experiment(loads(text, "order.yaml"), text, path / "run", Watcher(), path)
    assert done.result["run"] == "completed", done.result["reason"]
    return done.directory


def turns(run: Path) -> list[dict[str, Any]]:
    """What was recorded, with the node of each."""
    events = [event for event in lines(run, "events") if event["event"] == "turn"]
    return [{"node": event["node"], **json.loads(event["fields"])} for event in events]


def same(found: Replayed) -> bool:
    """Whether it is what was recorded, down to the last bit."""
    return not found.differ and len(found.replayed) == 5


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("protocol", [AD_PSGD, DADAO, A2CID2], ids=lambda p: p["kind"])
def test_atomic_exchanges_fall_where_they_fell(
    tmp_path: Path, protocol: dict[str, Any], seed: int
) -> None:
    run = recorded(tmp_path, protocol, seed=seed)
    what = [turn["what"] for turn in turns(run)]
    # a commit may be lost when the run ends, and the answerer stays in doubt
    assert what.count("decide") >= what.count("commit") > 20
    assert what.count("offer") > what.count("commit")
    assert same(replay(run))


@pytest.mark.parametrize(("protocol", "topology"), OTHERS, ids=lambda p: str(p)[10:20])
def test_messages_are_taken_where_they_were(
    tmp_path: Path, protocol: dict[str, Any], topology: str
) -> None:
    assert same(replay(recorded(tmp_path, protocol, topology)))


@pytest.mark.parametrize("protocol", [AD_PSGD, DADAO, A2CID2, FED_ASYNC], ids=lambda p: p["kind"])
def test_a_run_that_was_ended_by_time_ends_there_again(
    tmp_path: Path, protocol: dict[str, Any]
) -> None:
    topology = "star" if protocol is FED_ASYNC else "ring"
    run = recorded(tmp_path, protocol, topology, stop={"time": "150ms"})
    assert same(replay(run))


@pytest.mark.parametrize("fault", TIMING, ids=lambda fault: fault["fault"])
@pytest.mark.parametrize("protocol", [AD_PSGD, A2CID2, FED_ASYNC], ids=lambda p: p["kind"])
def test_faults_that_change_the_order_need_not_be_repeated(
    tmp_path: Path, protocol: dict[str, Any], fault: dict[str, Any]
) -> None:
    topology = "star" if protocol is FED_ASYNC else "ring"
    run = recorded(tmp_path, protocol, topology, faults=[fault | {"for": "60ms"}])
    assert {line["state"] for line in lines(run, "faults")} == {"active", "recovered"}
    assert same(replay(run))


def test_suspicions_come_where_they_came(tmp_path: Path) -> None:
    still = TIMING[-1] | {"for": "200ms"}
    wait = {"timeout": "50ms", "heartbeat": "5ms", "suspect_after": "20ms"}
    run = recorded(tmp_path, AD_PSGD, faults=[still], wait=wait)
    assert {"suspected", "trusted"} <= {turn["what"] for turn in turns(run)}
    assert same(replay(run))


def test_what_a_node_does_to_itself_in_a_round_is_done_again(tmp_path: Path) -> None:
    lie = {"id": "lie", "fault": "byz.sign_flip", "on": [1], "at": {"round": 5, "of": "own"}}
    assert same(replay(recorded(tmp_path, AD_PSGD, faults=[lie | {"for": {"rounds": 6}}])))


def rewritten(run: Path, change: Callable[[list[dict[str, Any]]], None]) -> None:
    """The recorded turns, all nodes' in one list, with something changed."""
    found = turns(run)
    change(found)
    events = [{"event": "turn", "node": turn.pop("node"), "fields": turn} for turn in found]
    (run / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))


def test_the_order_is_what_decides(tmp_path: Path) -> None:
    """A commit from before the start of a gradient comes after it."""

    def put_off(found: list[dict[str, Any]]) -> None:
        mine = [i for i, turn in enumerate(found) if turn["node"] == 0]
        # not one of the first: all begin with the same model
        commit = next(i for i in mine[50:] if found[i]["what"] == "commit")
        start = next(i for i in mine if i > commit and found[i]["what"] == "start")
        found.insert(start, found.pop(commit))

    run = recorded(tmp_path, AD_PSGD)
    rewritten(run, put_off)
    assert 0 in replay(run).differ


def test_an_order_that_makes_no_sense_is_an_error(tmp_path: Path) -> None:
    def change(found: list[dict[str, Any]]) -> None:
        next(turn for turn in found if turn["what"] == "compute")["what"] = "sleep"

    run = recorded(tmp_path, AD_PSGD)
    rewritten(run, change)
    with pytest.raises(RunError, match="this is not the run that was recorded"):
        replay(run)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"records": {"order": False}}, "set records.order"),
        (
            {"faults": [{"id": "lie", "fault": "byz.sign_flip", "on": [1], "at": "20ms"}]},
            r"'lie' \(byz.sign_flip\) struck",
        ),
        (
            {"faults": [{"id": "bad", "fault": "msg.bitflip", "on": "all", "at": "20ms"}]},
            r"'bad' \(msg.bitflip\) struck",
        ),
        (
            {"faults": [{"id": "dead", "fault": "node.crash", "on": 1, "at": "20ms"}]},
            r"'dead' \(node.crash\) struck|'died'",
        ),
    ],
)
def test_what_cannot_be_replayed_is_refused(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(UserError, match=reason):
        replay(recorded(tmp_path, AD_PSGD, **changes))
