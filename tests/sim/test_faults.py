"""Every fault at work in virtual time, with what it does counted exactly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.runs import lines

from tidings.errors import UserError
from tidings_coordinator.control.watch import Watcher
from tidings_coordinator.experiment.load import loads
from tidings_coordinator.running import Outcome, run_experiment

pytestmark = pytest.mark.sim

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


def test_a_cut_by_rounds_loses_exactly_the_messages_of_those_rounds(tmp_path: Path) -> None:
    event = "{id: cut, fault: link.cut, on: 0->1, at: {round: 10}, for: {rounds: 5}}"
    outcome, found = ran(tmp_path, event)
    assert states(found) == ["active", "recovered"]
    assert [line["round"] for line in found] == [10, 15]
    link = links(outcome)[0, 1]
    assert link["faulted"] == {"cut": {"messages": 5, "bytes": found[1]["detail"]["bytes"]}}
    assert link["messages"] == 30
    assert arrived(outcome, 0, 1) == 25
    assert outcome.result["faults"] == "all"
    assert outcome.exit_code == 0


def test_a_rejecting_cut_tells_the_sender(tmp_path: Path) -> None:
    event = "{id: cut, fault: link.cut, on: 0->1, with: {mode: reject}, at: {round: 10}}"
    outcome, found = ran(tmp_path, event)
    assert refused(outcome, 0)["rejected"] == found[-1]["detail"]["affected"] == 20
    # what was refused was never handed to the link
    assert links(outcome)[0, 1]["messages"] == 10


def test_a_cut_at_a_time_takes_what_has_not_begun_to_leave(tmp_path: Path) -> None:
    # each message takes 0.4 s on its link: in the second at which it is cut, one is on its way and
    # the next ones wait
    event = "{id: cut, fault: link.cut, on: 0->1, at: 1s}"
    outcome, found = ran(
        tmp_path, event, network="{rate: 16kbit/s}", protocol="{kind: ad_psgd, lr: 0.05}",
        stop="{time: 3s}", evaluate="{every: 1s}", wait="{timeout: 500ms}",
    )  # fmt: skip
    link = links(outcome)[0, 1]
    assert link["faulted"]["cut"]["messages"] >= found[-1]["detail"]["affected"]
    assert arrived(outcome, 0, 1) + link["faulted"]["cut"]["messages"] <= link["messages"]


def test_a_partition_cuts_both_ways_and_nothing_else(tmp_path: Path) -> None:
    with_ = "with: {groups: [[0, 1, 2]]}"
    event = f"{{id: split, fault: net.partition, {with_}, at: {{round: 3}}, for: {{rounds: 4}}}}"
    outcome, found = ran(tmp_path, event)
    cut = {(2, 3), (3, 2), (0, 5), (5, 0)}
    for arc, link in links(outcome).items():
        assert link["faulted"].get("split", {"messages": 0})["messages"] == (4 if arc in cut else 0)
    assert len(found) == 8


def test_loss_duplicates_and_corruption_are_counted_apart(tmp_path: Path) -> None:
    outcome, found = ran(
        tmp_path,
        "{id: loss, fault: link.loss, on: 0->1, with: {p: 0.5}}",
        "{id: twice, fault: link.duplicate, on: 1->2, with: {p: 0.5}}",
        "{id: wrong, fault: link.corrupt, on: 2->3, with: {p: 0.5, bits: 3}}",
        "{id: short, fault: msg.truncate, on: 3->4, with: {p: 0.5, message: Weights}}",
    )
    detail = {line["event"]: line["detail"] for line in found if line["state"] == "recovered"}
    assert all(5 <= each["affected"] <= 25 for each in detail.values())
    assert {each["messages"] for each in detail.values()} == {30}
    by = links(outcome)
    assert by[0, 1]["faulted"]["loss"]["messages"] == detail["loss"]["affected"]
    assert arrived(outcome, 0, 1) == 30 - detail["loss"]["affected"]
    assert by[1, 2]["duplicated"]["messages"] == detail["twice"]["affected"]
    assert by[1, 2]["messages"] == 30
    assert arrived(outcome, 1, 2) == 30 + detail["twice"]["affected"]
    nodes = lines(outcome.directory, "nodes")
    short = nodes[4]["arrivals"]["3"]
    assert short["refused"]["messages"] == detail["short"]["affected"]
    assert short["messages"] == 30 - detail["short"]["affected"]
    wrong = nodes[3]["arrivals"]["2"]
    assert wrong["messages"] + wrong["refused"]["messages"] == 30


def test_the_same_schedule_has_the_same_effect_every_time(tmp_path: Path) -> None:
    events = (
        "{id: loss, fault: link.loss, on: random(50%), with: {p: 0.3}}",
        "{id: late, fault: link.reorder, on: all, with: {p: 0.1, by: 50ms}, from: 10ms, to: 200ms}",
        "{id: old, fault: msg.replay, on: all, with: {p: 0.1}}",
        "{id: slow, fault: node.slow, on: random(2), with: {factor: 4}, at: {round: 5}}",
    )
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, _ = ran(tmp_path / "a", *events)
    second, _ = ran(tmp_path / "b", *events)
    assert first.result["trace_hash"] == second.result["trace_hash"]
    assert first.result["weights_sha256"] == second.result["weights_sha256"]


def test_replayed_messages_come_late_and_are_dropped(tmp_path: Path) -> None:
    outcome, found = ran(tmp_path, "{id: old, fault: msg.replay, on: 0->1}")
    assert found[-1]["detail"]["affected"] == 29
    # the last one comes when nobody listens any more
    assert refused(outcome, 1)["late"] == 28
    clean, _ = ran(tmp_path / "clean", "{id: mark, fault: mark}")
    assert clean.result["weights_sha256"] == outcome.result["weights_sha256"]


def test_a_slower_link_takes_longer_and_goes_back(tmp_path: Path) -> None:
    plain, _ = ran(tmp_path / "plain", "{id: mark, fault: mark}")
    event = (
        "{id: far, fault: link.shape, on: 0<->1, with: {delay: 50ms}, "
        "at: {round: 10}, for: {rounds: 10}}"
    )
    slow, _ = ran(tmp_path / "slow", event)
    longer_s = slow.result["time_s"] - plain.result["time_s"]
    # ten rounds take 50 ms longer for those who wait for that link, and everyone comes to
    assert longer_s == pytest.approx(0.5, abs=0.05)
    assert slow.result["weights_sha256"] == plain.result["weights_sha256"]


def test_a_trace_is_followed(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("time,rate,delay\n0s,,80ms\n400ms,,0ms\n")
    plain, _ = ran(tmp_path / "plain", "{id: mark, fault: mark}")
    file = tmp_path / "t.csv"
    traced, found = ran(
        tmp_path / "traced", f"{{id: t, fault: link.trace, on: all, with: {{file: {file}}}}}"
    )
    # the first rounds take 86 ms instead of 6 until 0.4 s have passed
    assert 0.3 < traced.result["time_s"] - plain.result["time_s"] < 0.5
    assert states(found)[:12] == ["active"] * 12


def test_a_flapping_link(tmp_path: Path) -> None:
    event = (
        "{id: flap, fault: link.flap, on: 0->1, with: {period: 200ms, down: 25%}, from: 0s, to: 1s}"
    )
    outcome, found = ran(tmp_path, event, stop="{rounds: 100}")
    detail = found[-1]["detail"]
    assert detail["affected"] == links(outcome)[0, 1]["faulted"]["flap"]["messages"] > 0
    assert found[-1]["time_s"] == 1.0


def test_stragglers_hold_up_who_waits_for_them(tmp_path: Path) -> None:
    plain, _ = ran(tmp_path / "plain", "{id: mark, fault: mark}")
    event = (
        "{id: slow, fault: node.slow, on: 2, with: {factor: 51}, "
        "at: {round: 10}, for: {rounds: 10}}"
    )
    slow, _ = ran(tmp_path / "slow", event)
    assert slow.result["time_s"] - plain.result["time_s"] == pytest.approx(0.5, abs=0.05)


def test_a_byzantine_turn(tmp_path: Path) -> None:
    plain, _ = ran(tmp_path / "plain", "{id: mark, fault: mark}")
    turned, found = ran(
        tmp_path / "turned", "{id: turn, fault: byz.sign_flip, on: 3, at: {round: 28}}"
    )
    assert states(found) == ["active", "recovered"]
    assert plain.result["weights_sha256"] != turned.result["weights_sha256"]
    healed, _ = ran(
        tmp_path / "healed",
        "{id: turn, fault: byz.sign_flip, on: 3, at: {round: 0}, for: {rounds: 30}}",
    )
    assert healed.result["weights_sha256"] != turned.result["weights_sha256"]


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


@pytest.mark.parametrize("fault", ["data.label_noise, with: {fraction: 50%}", "data.shift"])
def test_disturbed_data(tmp_path: Path, fault: str) -> None:
    digits = {"problem": "{kind: digits, hidden: 8}"}
    plain, _ = ran(tmp_path / "plain", "{id: m, fault: mark}", **digits)
    spoilt, found = ran(tmp_path / "spoilt", f"{{id: d, fault: {fault}, on: all}}", **digits)
    again, _ = ran(tmp_path / "again", f"{{id: d, fault: {fault}, on: all}}", **digits)
    assert states(found)[:6] == ["active"] * 6
    assert spoilt.result["weights_sha256"] == again.result["weights_sha256"]
    assert spoilt.result["weights_sha256"] != plain.result["weights_sha256"]
    with pytest.raises(UserError, match=r"f\.yaml:\d+: faults\.0\.fault: .*Quadratic"):
        ran(tmp_path / "no", f"{{id: d, fault: {fault}, on: all}}")


def test_a_store_that_fails(tmp_path: Path) -> None:
    event = "{id: full, fault: store.fail, on: 2, from: {round: 8}, to: {round: 18}}"
    outcome, found = ran(tmp_path, event, checkpoint="{every: 5}")
    assert found[-1]["detail"] == {"checkpoints": 2}
    failures = [e for e in lines(outcome.directory, "events") if e["event"] == "checkpoint_failed"]
    assert [failure["node"] for failure in failures] == [2, 2]
    assert "No space left on device" in json.dumps(failures)
    with pytest.raises(UserError, match="nodes write no checkpoints"):
        ran(tmp_path / "no", event)


def test_another_graph_from_a_round_on(tmp_path: Path) -> None:
    rewired, found = ran(
        tmp_path,
        "{id: wide, fault: graph.rewire, with: {topology: complete}, at: {round: 20}}",
        "{id: split, fault: net.partition, with: {groups: [[0, 1, 2]]}, "
        "at: {round: 25}, for: {rounds: 2}}",
    )
    assert sorted(line["target"] for line in found[:6]) == list("012345")
    assert rewired.result["faults"] == "all"
    for (i, j), link in links(rewired).items():
        on_the_ring = (i - j) % 6 in (1, 5)
        crosses = (i < 3) != (j < 3)
        assert link["messages"] == (30 if on_the_ring else 10)
        assert link["faulted"].get("split", {"messages": 0})["messages"] == 2 * crosses
    arcs = json.loads((rewired.directory / "graph.json").read_text())["arcs"]
    assert len(arcs) == 30


def test_another_graph_is_as_if_it_had_been_planned(tmp_path: Path) -> None:
    event = (
        "{id: wide, fault: graph.rewire, at: {round: 10}, for: {rounds: 10}, "
        "with: {topology: {kind: star, mixing: max_degree}}}"
    )
    sequence = "{kind: sequence, every: 10, of: [ring, {kind: star, mixing: max_degree}]}"
    base = {"topology": "{kind: sequence, every: 10, of: [ring, ring]}"}
    rewired, _ = ran(tmp_path / "a", event, **base)
    planned, _ = ran(tmp_path / "b", "{id: m, fault: mark}", topology=sequence)
    plain, _ = ran(tmp_path / "c", "{id: m, fault: mark}", **base)
    assert rewired.result["weights_sha256"] == planned.result["weights_sha256"]
    assert rewired.result["weights_sha256"] != plain.result["weights_sha256"]


def test_another_graph_at_a_time_is_taken_by_each_in_its_next_round(tmp_path: Path) -> None:
    outcome, found = ran(
        tmp_path,
        "{id: wide, fault: graph.rewire, with: {topology: complete}, from: 60ms, to: 120ms}",
    )
    assert states(found) == ["active"] * 6 + ["recovered"] * 6
    assert {line["time_s"] for line in found} == {0.06, 0.12}
    # those of the ring go on, the others carry something meanwhile
    assert 0 < links(outcome)[0, 3]["messages"] < 30
    assert outcome.result["rounds"] == 30
