"""Faults of nodes, and of their coordinator, in virtual time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.faulty import arrived, ran, refused, states
from support.runs import lines

pytestmark = pytest.mark.sim


def test_a_crash_in_a_round_and_the_others_go_on(tmp_path: Path) -> None:
    outcome, found = ran(tmp_path, "{id: dead, fault: node.crash, on: 2, at: {round: 10}}")
    assert states(found) == ["active"]
    assert found[0]["round"] == 10
    assert outcome.result["faults"] == "all"
    assert outcome.result["weights_sha256"][2] is None
    assert arrived(outcome, 2, 1) == 10
    # an intended death is not a failure
    assert outcome.exit_code == 0


def test_a_pause_holds_a_node_still_for_as_long_as_asked(tmp_path: Path) -> None:
    outcome, found = ran(tmp_path, "{id: p, fault: node.pause, on: 2, at: {round: 10}, for: 70ms}")
    began, ended = found
    assert ended["time_s"] - began["time_s"] == pytest.approx(0.07, abs=1e-6)
    plain, _ = ran(tmp_path / "plain", "{id: mark, fault: mark}")
    assert outcome.result["time_s"] - plain.result["time_s"] == pytest.approx(0.07, abs=0.02)
    assert outcome.result["weights_sha256"] == plain.result["weights_sha256"]


def test_who_leaves_sends_nothing_and_comes_back(tmp_path: Path) -> None:
    outcome, found = ran(
        tmp_path,
        "{id: away, fault: node.leave, on: 2, from: 60ms, to: 400ms}",
        wait="{for: live, timeout: 50ms}",
        stop="{rounds: 100}",
    )
    assert states(found) == ["active", "recovered"]
    assert refused(outcome, 2)["away"] > 0


def test_nobody_waits_for_who_has_said_that_it_goes(tmp_path: Path) -> None:
    outcome, _ = ran(
        tmp_path,
        "{id: away, fault: node.leave, on: 2, at: 60ms}",
        wait="{for: live, timeout: 30s}",
        stop="{time: 3s}",
    )
    # not even once
    assert arrived(outcome, 0, 1) > 300


def test_who_joins_later_begins_then(tmp_path: Path) -> None:
    outcome, found = ran(
        tmp_path,
        "{id: late, fault: node.join, on: 2, at: 1s}",
        wait="{for: live, timeout: 50ms}",
        stop="{time: 3s}",
        evaluate="{every: 500ms}",
    )
    assert [(line["state"], line["time_s"]) for line in found] == [("active", 0), ("recovered", 1)]
    rows = [row for row in lines(outcome.directory, "series") if row["node"] == 2]
    assert all(row["round"] == row["messages"] == 0 for row in rows if row["time_s"] < 1)
    assert rows[-1]["round"] > 0
    others = [row for row in lines(outcome.directory, "series") if row["node"] == 1]
    assert max(row["round"] for row in others if row["time_s"] < 1) > 20
    assert outcome.result["faults"] == "all"


def test_who_never_joined_is_no_pass(tmp_path: Path) -> None:
    outcome, _ = ran(
        tmp_path,
        "{id: late, fault: node.join, on: 2, at: 10s}",
        wait="{for: live, timeout: 30s}",
        stop="{time: 1s}",
    )
    assert outcome.result["faults"] == "partial"
    assert outcome.exit_code == 4


def test_a_wrong_clock_is_wrong_for_the_protocol_only(tmp_path: Path) -> None:
    plain, _ = ran(
        tmp_path / "plain", "{id: mark, fault: mark}", protocol="{kind: dadao, unit: 100ms}",
        stop="{time: 2s}", evaluate="{every: 500ms}",
    )  # fmt: skip
    skewed, _ = ran(
        tmp_path / "skewed",
        "{id: clock, fault: node.clock, on: 1, with: {drift_ppm: 200000.0}, at: 500ms}",
        protocol="{kind: dadao, unit: 100ms}", stop="{time: 2s}", evaluate="{every: 500ms}",
    )  # fmt: skip
    assert plain.result["trace_hash"] != skewed.result["trace_hash"]
    times = [row["time_s"] for row in lines(skewed.directory, "series") if row["node"] == 1]
    assert max(times) <= 2.01


def test_marks_conditions_and_chains(tmp_path: Path) -> None:
    _, found = ran(
        tmp_path,
        "{id: far, fault: mark, with: {text: bytes}, at: {bytes: 100kB}}",
        "{id: low, fault: link.cut, on: 0->1, when: {metric: loss, '<=': 1000.0}, for: 20ms}",
        "{id: then, fault: mark, after: {event: low, state: recovered, delay: 10ms}}",
        "{id: never, fault: mark, at: {bytes: 1GB}}",
        "{id: ten, fault: mark, at: {round: 10}}",
    )
    by = {(line["event"], line["state"]): line for line in found}
    assert by["then", "active"]["time_s"] == pytest.approx(
        by["low", "recovered"]["time_s"] + 0.01, abs=1e-3
    )
    assert ("far", "active") in by
    assert ("ten", "active") in by
    assert by["never", "skipped"]["detail"]["reason"].startswith("its moment did not come")


def test_an_isolated_coordinator_acts_late(tmp_path: Path) -> None:
    outcome, found = ran(
        tmp_path,
        "{id: away, fault: coord.isolate, at: 30ms, for: 100ms}",
        "{id: own, fault: node.slow, on: 1, with: {factor: 2}, from: 40ms, to: 60ms}",
        "{id: due, fault: mark, at: 50ms}",
        "{id: dead, fault: node.crash, on: 2, at: {round: 8}}",
        wait="{for: live, timeout: 200ms}",
    )
    assert outcome.result["faults"] == "all"
    by = {(line["event"], line["state"]): line for line in found}
    times_s = {key: line["time_s"] for key, line in by.items()}
    assert times_s["away", "active"] == 0.03
    assert times_s["away", "recovered"] == 0.13
    # what nodes do themselves is on time, and told later
    assert times_s["own", "active"] == 0.04
    assert times_s["own", "recovered"] == 0.06
    assert list(by).index(("away", "recovered")) < list(by).index(("own", "active"))
    assert times_s["due", "active"] == 0.13
    # it has stood still in its round, waiting for it
    assert (times_s["dead", "active"], by["dead", "active"]["round"]) == (0.13, 8)
    late_s = {each["event"]: each["late_s"] for each in outcome.result["faults_applied"]}
    assert late_s["due"] == 0.08


#: what only a coordinator can bring about or end
BY_HAND = (
    "{id: ice, fault: node.pause, on: 1, at: 40ms, for: 30ms}",
    "{id: back, fault: node.crash, on: 4, at: {round: 6}, with: {restart_after: 60ms}}",
    "{id: cut, fault: link.cut, on: 2<->3, at: {bytes: 60kB}, for: {bytes: 60kB}}",
    "{id: low, fault: mark, when: {metric: loss, '<=': 330.0, hold: 30}}",
    "{id: then, fault: mark, after: {event: cut, state: recovered, delay: 20ms}}",
)
LIVE = {"wait": "{for: live, timeout: 100ms}", "stop": "{rounds: 80}"}


@pytest.mark.parametrize("at_ms", range(35, 300, 40))
def test_a_coordinator_that_dies_is_succeeded_by_its_records(tmp_path: Path, at_ms: int) -> None:
    """Whenever it dies, another one sees to the end of all that it had begun, and a little late."""
    event = f"{{id: gone, fault: coord.crash, at: {at_ms}ms, with: {{restart_after: 25ms}}}}"
    outcome, found = ran(tmp_path, *BY_HAND, event, **LIVE)
    assert outcome.result["faults"] == "all", found
    said = [(line["event"], line["target"], line["state"]) for line in found]
    assert len(said) == len(set(said))
    by = {(line["event"], line["state"]): line["time_s"] for line in found}
    assert by["gone", "active"] == at_ms / 1e3
    assert by["gone", "recovered"] == pytest.approx(at_ms / 1e3 + 0.025)
    assert by["ice", "recovered"] >= by["ice", "active"] + 0.03 - 1e-6
    assert by["then", "active"] >= by["cut", "recovered"] + 0.02 - 1e-6
    # nothing but what its absence has put off is otherwise than without
    _, without = ran(tmp_path / "without", *BY_HAND, **LIVE)
    for line in without:
        key = (line["event"], line["state"])
        if line["time_s"] < at_ms / 1e3:
            assert by[key] == line["time_s"]


def test_an_isolated_coordinator_cannot_stop_the_run(tmp_path: Path) -> None:
    stop = "{bytes: 20kB}"
    early, _ = ran(tmp_path / "a", "{id: m, fault: mark}", stop=stop)
    late, _ = ran(tmp_path / "b", "{id: m, fault: coord.isolate, at: 1ms, for: 2s}", stop=stop)
    assert early.result["time_s"] < 2.0 <= late.result["time_s"]
    assert early.result["reason"] == late.result["reason"] == "20000B sent"
    # a time that is up is up
    last, found = ran(tmp_path / "c", "{id: m, fault: coord.isolate, for: 9s}", stop="{time: 1s}")
    assert last.result["time_s"] == 1.0
    assert found[-1]["detail"] == {"why": "the end of the run"}


def test_a_fault_that_did_not_happen_is_not_a_pass(tmp_path: Path) -> None:
    outcome, found = ran(
        tmp_path, "{id: reset, fault: link.cut, on: 0->1, at: 1h}", "{id: m, fault: mark}"
    )
    assert states(found) == ["active", "skipped"]
    assert outcome.result["faults"] == "partial"
    assert outcome.exit_code == 4
    (cut, _) = json.loads((outcome.directory / "result.json").read_text())["faults_applied"]
    assert (cut["event"], cut["targets"], cut["active"]) == ("reset", 1, 0)


def test_a_crashed_node_comes_back_to_the_faults_that_hold_for_it(tmp_path: Path) -> None:
    outcome, found = ran(
        tmp_path,
        "{id: dead, fault: node.crash, on: 2, at: {round: 10}, with: {restart_after: 60ms}}",
        "{id: loss, fault: link.loss, on: 2->3, with: {p: 1.0}, at: {round: 5}}",
        "{id: past, fault: link.loss, on: 2->1, with: {p: 1.0}, at: {round: 5}, for: {rounds: 3}}",
        stop="{rounds: 60}",
        wait="{for: live, timeout: 100ms}",
    )
    by = [(line["event"], line["target"], line["state"]) for line in found]
    assert by.count(("dead", "2", "active")) == 1
    assert by.count(("dead", "2", "recovered")) == 1
    # the loss is there again when the node is, the one that was over is not
    assert by.count(("loss", "2->3", "active")) == 2
    assert by.count(("past", "2->1", "active")) == 1
    assert outcome.result["faults"] == "all"
    assert None not in outcome.result["weights_sha256"]
    # before the loss began, and the handshake of the return before the first round after it
    assert arrived(outcome, 2, 3) <= 5 + 2
    assert arrived(outcome, 2, 1) > 40


def test_churn(tmp_path: Path) -> None:
    outcome, found = ran(
        tmp_path,
        "{id: c, fault: node.churn, on: all, with: {per_minute: 100%, downtime: 500ms}}",
        stop="{time: 60s}",
        evaluate="{every: 1s}",
        compute="{simulated: 50ms}",
        wait="{for: live, timeout: 1s}",
    )
    crashes = [line for line in found if line["state"] == "active"]
    assert len(crashes) >= 2
    assert outcome.result["faults"] == "all"
    assert outcome.result["loss"] is not None


def test_whoever_lets_a_deadline_pass_is_not_waited_for_again(tmp_path: Path) -> None:
    event = "{id: cut, fault: link.cut, on: 0->1, at: {round: 5}, for: {rounds: 15}}"
    (tmp_path / "all").mkdir()
    live, _ = ran(tmp_path, event, wait="{for: live, timeout: 1s}")
    everyone, _ = ran(tmp_path / "all", event, wait="{for: all, timeout: 1s}")
    # one deadline in place of fifteen
    assert live.result["time_s"] < 1.5
    assert everyone.result["time_s"] > 14
    # and when it is heard again it counts again
    assert arrived(live, 0, 1) == 15
    assert refused(live, 1)["missing"] <= 17
