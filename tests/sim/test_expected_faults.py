"""Checks and pages of simulated runs with faults: every message is accounted for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.made_runs import seen
from support.runs import lines

from tidings_coordinator.control.watch import Watcher
from tidings_coordinator.experiment import loads
from tidings_coordinator.records.reading import read
from tidings_coordinator.records.timeline import timelines
from tidings_coordinator.report.page import write_report
from tidings_coordinator.report.trace import write_trace
from tidings_coordinator.running import Outcome, run_experiment

pytestmark = pytest.mark.sim

BASE = """
name: broken
nodes: 8
network: {rate: 20Mbit/s, delay: 5ms}
problem: {kind: digits, hidden: 16}
protocol: {kind: d_psgd, lr: 0.1}
wait: {for: all, timeout: 100ms}
stop: {rounds: 60}
evaluate: {every: 5}
records: {trace: true}
"""
#: of every kind that loses, doubles or damages messages
FAULTS = """
faults:
  - {id: split, fault: net.partition, with: {shape: halves}, at: {round: 10}, for: {rounds: 6}}
  - {id: lossy, fault: link.loss, on: 2<->3, with: {p: 0.5}, at: {round: 20}, for: {rounds: 20}}
  - {id: twice, fault: link.duplicate, on: 4->5, with: {p: 0.5}, at: {round: 20}, for: {rounds: 9}}
  - {id: bits, fault: link.corrupt, on: 5->6, with: {p: 0.5}, at: {round: 20}, for: {rounds: 20}}
  - {id: stump, fault: msg.truncate, on: 6->5, with: {p: 0.5}, at: {round: 20}, for: {rounds: 20}}
  - {id: late, fault: msg.delay, on: 1->0, with: {by: 30ms}, at: {round: 30}, for: {rounds: 9}}
  - {id: alone, fault: node.isolate, on: 4, at: {round: 45}, for: {rounds: 5}}
  - {id: cut, fault: link.cut, on: 0->1, at: 100ms, for: 50ms, every: 200ms, times: 3}
  - {id: dead, fault: node.crash, on: 7, at: {round: 40}}
"""
EXPECTED = """
expect:
  - accounting
  - isolation
  - {check: final_state, spared_by: dead, is: finished}
  - {check: final_state, hit_by: dead, is: dead}
  - {check: recovered, after: split, within: {rounds: 10}, slack: 5%}
  - {check: accuracy, ">=": 40%}
"""


def run(path: Path, text: str, *settings: str) -> Outcome:
    """Simulate an experiment."""
    given = ["launcher=simulator", "monitor.serve=false", *settings]
    return run_experiment(loads(text, "f.yaml", given), text, path, Watcher(), path.parent)


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """A run with all of it."""
    path = tmp_path_factory.mktemp("runs") / "broken"
    return path, run(path, BASE + FAULTS + EXPECTED)


def judged(outcome: Outcome) -> dict[str, Any]:
    """The first check of each kind."""
    return {each["check"]: each for each in reversed(outcome.result["expect"])}


def test_all_is_as_expected(broken: tuple[Path, Outcome]) -> None:
    _, outcome = broken
    found = outcome.result
    assert [(c["verdict"], c["text"]) for c in found["expect"] if c["verdict"] != "pass"] == []
    assert (found["faults"], found["checks"], outcome.exit_code) == ("all", "pass", 0)


def test_the_books_name_every_loss(broken: tuple[Path, Outcome]) -> None:
    path, outcome = broken
    measured = judged(outcome)["accounting"]["measured"]
    assert measured["unexplained"] == 0
    assert measured["refused messages"] > 0
    lost: dict[str, int] = {}
    for line in lines(path, "links"):
        for event, count in line["faulted"].items():
            lost[event] = lost.get(event, 0) + count["messages"]
    assert {"split", "lossy", "alone"} <= set(lost)
    assert {event: measured[f"lost by '{event}'"] for event in lost} == lost


@pytest.mark.parametrize(
    ("file", "change", "check", "said"),
    [
        ("links", ("messages", 1), "accounting", "0->1: +1 messages"),
        ("links", ("messages", -1), "accounting", "0->1: -1 messages"),
        ("nodes", ("arrivals", {"3": {"messages": 1, "bytes": 9}}), "isolation", "1 over a non-e"),
    ],
)
def test_records_that_were_tampered_with_do_not_pass(
    broken: tuple[Path, Outcome], tmp_path: Path, file: str, change: Any, check: str, said: str
) -> None:
    path, _ = broken
    for source in path.iterdir():
        if source.is_file():
            (tmp_path / source.name).write_bytes(source.read_bytes())
    rows = lines(path, file)
    key, more = change
    rows.sort(key=lambda row: (row.get("source", 0), row.get("target", 0)))
    rows[0][key] = rows[0][key] + more if isinstance(more, int) else rows[0][key] | more
    (tmp_path / f"{file}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    from tidings_coordinator.judging import judge

    found = {each["check"]: each for each in reversed(judge(tmp_path, None))}[check]
    assert (found["verdict"], said in found["text"]) == ("fail", True), found


def test_the_curve_goes_on_after_the_death(broken: tuple[Path, Outcome]) -> None:
    path, outcome = broken
    points = read(path).points
    assert [point.round for point in points] == list(range(0, 61, 5))
    sent = [point.bytes["total"] for point in points]
    assert sent == sorted(sent)
    assert outcome.result["rounds"] == 60


def test_the_page_and_the_trace_show_it(broken: tuple[Path, Outcome], tmp_path: Path) -> None:
    path, _ = broken
    text = seen(write_report(path, tmp_path / "report.html"))
    for said in ("Faults all as asked", "Checks 6 pass", "split net.partition", "dead node.crash"):
        assert said in text, said
    (death,) = [row for row in lines(path, "faults") if row["event"] == "dead"]
    last = timelines(read(path))[7][-1]
    assert last.down
    assert last.from_us == round(1e6 * death["time_s"])
    trace = write_trace(path, tmp_path / "trace.json")
    assert trace is not None
    events = json.loads(trace.read_text())["traceEvents"]
    assert {e["name"] for e in events if e["ph"] == "b"} == {
        "split", "lossy", "twice", "bits", "stump", "late", "alone", "cut", "dead"
    }  # fmt: skip


def test_a_fault_that_cannot_come_is_no_pass(tmp_path: Path) -> None:
    never = "faults: [{id: far, fault: link.cut, on: 0->1, at: {round: 1000}}]\n"
    outcome = run(tmp_path / "out", BASE + never + "expect: [isolation, accounting]\n")
    assert (outcome.result["run"], outcome.result["faults"]) == ("completed", "none")
    assert [each["verdict"] for each in outcome.result["expect"]] == ["unknown", "pass"]
    assert outcome.exit_code == 4


@pytest.mark.parametrize("pause", ["", "faults: [{id: still, fault: node.pause, on: 3, at: 90ms}]"])
@pytest.mark.parametrize("protocol", ["ad_psgd", "d_psgd"])
def test_what_is_on_its_way_when_a_run_is_stopped_is_in_the_books(
    tmp_path: Path, protocol: str, pause: str
) -> None:
    """Slow links, so that there always is something."""
    text = (
        "nodes: 6\nnetwork: {rate: 1Mbit/s, delay: 20ms, loss: 2%}\nwait: {timeout: 5ms}\n"
        "problem: {kind: quadratic}\n"
        f"protocol: {{kind: {protocol}, lr: 0.05}}\nstop: {{time: 433ms}}\n{pause}\n"
        "expect: [accounting]\n"
    )
    outcome = run(tmp_path / "out", text)
    (found,) = outcome.result["expect"]
    assert (found["verdict"], found["measured"]["unexplained"]) == ("pass", 0), found
    assert found["measured"]["in_flight messages"] > 0
