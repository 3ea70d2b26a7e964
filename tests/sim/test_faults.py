"""Every fault at work in virtual time, with what it does counted exactly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.faulty import arrived, links, ran, refused, states
from support.runs import lines

from tidings.errors import UserError

pytestmark = pytest.mark.sim


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
