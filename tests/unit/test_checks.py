"""Checks on run directories made by hand: what passes, what fails, what cannot be known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.made_runs import FIDELITY, closing, fault, finish, link, make

from tidings.v1 import records_pb2 as records
from tidings_coordinator.checks.base import Check, Judged
from tidings_coordinator.experiment.selectors import Resolver
from tidings_coordinator.records.directory import RunDirectory
from tidings_coordinator.records.reading import read

pytestmark = pytest.mark.unit


def judged(directory: RunDirectory, check: str, **parameters: Any) -> Judged:
    """A check on a run as far as it is written."""
    directory.close()
    resolver = Resolver({}, 4)
    found = Check.parse({"check": check} | parameters).resolved(resolver)
    resolver.finish()
    return found.judge(read(directory.path))


# -- metrics -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "verdict", "measured"),
    [
        ({">=": "60%"}, "pass", 0.715),
        ({">=": 0.72}, "fail", 0.715),
        ({">": 0.1, "<": 0.7}, "fail", 0.715),
        ({"at": {"round": 10}, ">=": 0.6}, "fail", 0.515),
        # between two evaluations the earlier one holds
        ({"at": {"round": 19}, "<=": 0.515}, "pass", 0.515),
        ({"at": "1.9s", ">=": 0.5}, "pass", 0.515),
        ({"at": {"round": 21}, ">=": 0.1}, "unknown", None),
        ({"at": "2.1s", ">=": 0.1}, "unknown", None),
        ({"over": "lowest", ">": 0.7}, "fail", 0.7),
        ({"over": "highest", ">=": 0.73}, "pass", 0.73),
    ],
)
def test_accuracy(
    tmp_path: Path, parameters: dict[str, Any], verdict: str, measured: float | None
) -> None:
    run = make(tmp_path, [0.1, 0.5, 0.7])
    found = judged(run, "accuracy", **parameters)
    assert (found.verdict, found.measured) == (verdict, pytest.approx(measured))
    # the same by its name
    run.close()
    assert judged(run, "metric", name="accuracy", **parameters) == found


def test_what_was_not_recorded_is_unknown_and_what_diverged_fails(tmp_path: Path) -> None:
    run = make(tmp_path / "a", [0.1, 0.5])
    assert judged(run, "loss", **{"<": 1}).verdict == "unknown"
    assert "recorded: accuracy" in judged(run, "loss", **{"<": 1}).text
    diverged = make(tmp_path / "b", [1.0, float("nan")], metric="loss")
    for bound in ("<", ">"):
        found = judged(diverged, "loss", **{bound: 1})
        assert (found.verdict, "not a finite number" in found.text) == ("fail", True)
    assert judged(make(tmp_path / "c", []), "loss", **{"<": 1}).verdict == "unknown"


# -- recovery ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("means", "within", "slack", "verdict"),
    [
        # a point a second and 10 rounds; the fault holds from 1.5 to 2.5 s
        ([0.1, 0.6, 0.3, 0.6, 0.7, 0.7], "1s", 0, "pass"),
        ([0.1, 0.6, 0.3, 0.5, 0.6, 0.7], "1s", 0, "fail"),
        ([0.1, 0.6, 0.3, 0.5, 0.6, 0.7], "2s", 0, "pass"),
        ([0.1, 0.6, 0.3, 0.5, 0.6, 0.7], "1s", "20%", "pass"),
        ([0.1, 0.6, 0.3, 0.4, 0.5, 0.5], "1s", 0, "fail"),
        ([0.1, 0.6, 0.3, 0.4, 0.5, 0.5], "1min", 0, "unknown"),
        ([0.1, 0.6, 0.3, 0.6, 0.7, 0.7], {"rounds": 5}, 0, "pass"),
        ([0.1, 0.6, 0.3, 0.5, 0.6, 0.7], {"rounds": 5}, 0, "fail"),
        ([0.1, 0.6, 0.3, 0.5, 0.6, 0.7], {"rounds": 15}, 0, "pass"),
        ([0.1, 0.6, 0.3, 0.4, 0.5, 0.5], {"rounds": 100}, 0, "unknown"),
    ],
)
def test_recovered(
    tmp_path: Path, means: list[float], within: Any, slack: Any, verdict: str
) -> None:
    run = make(tmp_path, means)
    fault(run, "split", "active", 1.5, "0->1", "1->0")
    fault(run, "split", "recovered", 2.5, "0->1", "1->0", round_=25)
    asked = {"after": "split", "within": within, "slack": slack}
    assert judged(run, "recovered", **asked).verdict == verdict


def test_recovered_is_lower_for_a_loss_and_counts_every_time(tmp_path: Path) -> None:
    run = make(tmp_path, [2.0, 1.0, 3.0, 1.0, 4.0, 2.0, 2.0], metric="loss")
    asked = {"after": "split", "within": "1s", "metric": "loss"}
    assert judged(run, "recovered", **asked).verdict == "unknown"
    fault(run, "split", "active", 1.5, "0->1")
    assert judged(run, "recovered", **asked).verdict == "unknown"
    fault(run, "split", "recovered", 2.5, "0->1")
    assert judged(run, "recovered", **asked).verdict == "pass"
    fault(run, "split", "active", 3.5, "0->1", occurrence=1)
    fault(run, "split", "recovered", 4.5, "0->1", occurrence=1)
    found = judged(run, "recovered", **asked)
    assert (found.verdict, len(found.measured)) == ("fail", 2)


def test_recovered_needs_a_level_before(tmp_path: Path) -> None:
    run = make(tmp_path, [0.1, 0.5])
    fault(run, "early", "active", -0.5, "0->1")
    fault(run, "early", "recovered", 0.5, "0->1")
    found = judged(run, "recovered", after="early", within="1s")
    assert (found.verdict, "before 'early'" in found.text) == ("unknown", True)


# -- nodes -------------------------------------------------------------------------------------


def test_final_state(tmp_path: Path) -> None:
    run = make(tmp_path, [0.1])
    for node in (0, 1):
        run.append("nodes", closing(node, {}))
    fault(run, "kill", "active", 1.0, "2", kind="node.crash", how="SIGKILL")
    fault(run, "again", "active", 0.5, "1", kind="node.crash")
    fault(run, "again", "recovered", 0.8, "1", kind="node.crash")

    def verdict(**parameters: Any) -> str:
        return judged(run, "final_state", **parameters).verdict

    assert verdict(nodes=[0, 1], **{"is": "finished"}) == "pass"
    assert verdict(nodes=[2], **{"is": "dead"}) == "pass"
    assert verdict(nodes=[1], **{"is": "dead"}) == "fail"
    # nothing is known of node 3
    assert verdict(nodes=[0, 3], **{"is": "finished"}) == "unknown"
    assert verdict(nodes=[2, 3], **{"is": "finished"}) == "fail"
    assert verdict(hit_by="kill", **{"is": "dead"}) == "pass"
    assert verdict(nodes="0..2", spared_by="kill", **{"is": "finished"}) == "pass"
    assert verdict(nodes=[0], hit_by="kill", **{"is": "dead"}) == "unknown"
    run.event("died", 1.0, 3, how="killed by SIGKILL")
    assert verdict(nodes=[2, 3], **{"is": "dead"}) == "pass"
    fault(run, "away", "active", 1.0, "0", kind="node.leave")
    assert verdict(nodes=[0], **{"is": "left"}) == "pass"
    fault(run, "away", "recovered", 2.0, "0", kind="node.leave")
    assert verdict(nodes=[0], **{"is": "finished"}) == "pass"


# -- fidelity ----------------------------------------------------------------------------------


def test_fidelity(tmp_path: Path) -> None:
    run = make(tmp_path, [0.1])
    assert judged(run, "fidelity", rate_error="1%").verdict == "unknown"
    measured = FIDELITY | {"rate_error": -0.03, "delay_error_s": 0.001}
    run.write_json("fidelity.json", measured)
    assert judged(run, "fidelity", rate_error="5%", delay_error="2ms").verdict == "pass"
    assert judged(run, "fidelity", rate_error="2%", delay_error="2ms").verdict == "fail"
    assert judged(run, "fidelity", delay_error="0.5ms").verdict == "fail"
    assert judged(run, "fidelity", lag="5ms").verdict == "fail"
    run.write_json("fidelity.json", measured | {"rate_error": None})
    assert judged(run, "fidelity", rate_error="5%", lag="20ms").verdict == "unknown"
    # what is known to be wrong is wrong, whatever else is not known
    assert judged(run, "fidelity", rate_error="5%", lag="5ms").verdict == "fail"


# -- conservation ------------------------------------------------------------------------------


def gossip(path: Path, models: list[list[float]], weights: list[list[float | None]]) -> Any:
    """A run of four nodes whose models' sketches, and reported weights, are given by round."""
    run = make(path, [])
    for round_, (values, reported) in enumerate(zip(models, weights, strict=True)):
        for node, (value, weight) in enumerate(zip(values, reported, strict=True)):
            run.evaluation(
                records.Evaluation(
                    node=node,
                    round=round_,
                    time_s=float(round_),
                    metrics={} if weight is None else {"weight": weight},
                    sketch=np.array([value, -2 * value], dtype="<f4").tobytes(),
                )
            )
    return run


def test_conservation(tmp_path: Path) -> None:
    ones: list[float | None] = [1.0] * 4
    run = gossip(
        tmp_path / "a",
        [[1.0, 2.0, 3.0, 4.0], [2.0, 2.0, 2.0, 4.0], [2.5, 2.5, 2.5, 2.5]],
        [ones, [0.5, 1.5, 0.5, 1.5], ones],
    )
    found = judged(run, "conservation")
    assert (found.verdict, found.measured["evaluations"]) == ("pass", 2)
    assert judged(run, "conservation", of="weight").verdict == "pass"
    assert judged(run, "conservation", of="weight", equals=4).verdict == "pass"
    assert judged(run, "conservation", of="weight", equals=5).verdict == "fail"
    assert judged(run, "conservation", of="mass").verdict == "unknown"


def test_conservation_that_is_broken_for_a_while_only(tmp_path: Path) -> None:
    run = gossip(
        tmp_path,
        [[1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.1], [2.5, 2.5, 2.5, 2.5]],
        [[1.0] * 4, [None] * 4, [1.0] * 4],
    )
    found = judged(run, "conservation")
    assert (found.verdict, found.measured["round"]) == ("fail", 1)
    assert found.measured["off"] == pytest.approx(0.01, rel=1e-3)
    assert judged(run, "conservation", at="end").verdict == "pass"
    assert judged(run, "conservation", tolerance="2%").verdict == "pass"
    assert judged(run, "conservation", of="weight").verdict == "unknown"


# -- accounting --------------------------------------------------------------------------------


def books(
    path: Path, rows: list[dict[str, Any]], nodes: list[dict[str, Any]], reason: str | None = None
) -> RunDirectory:
    """A run with these closing records."""
    run = make(path, [0.1])
    run.event("over", 1.0, reason=reason)
    for row in rows:
        run.append("links", row)
    for row in nodes:
        run.append("nodes", row)
    return run


BALANCED = [
    link(0, 1, 100, lost=5, undeliverable=2, faulted={"split": 10, "drop": 3}, duplicated=4),
    link(1, 0, 50),
]
RECEIVED = [closing(0, {1: 50}), closing(1, {0: 84})]


def test_books_that_balance(tmp_path: Path) -> None:
    found = judged(books(tmp_path, BALANCED, RECEIVED), "accounting")
    assert found.verdict == "pass", found.text
    assert found.measured["lost by 'split'"] == 10
    assert found.measured["handed messages"] == 150


@pytest.mark.parametrize(
    ("arrived", "reason", "verdict"),
    [
        (83, None, "fail"),
        # with messages on their way, nothing is known
        (83, "5s passed", "unknown"),
        (85, None, "fail"),
        (85, "5s passed", "fail"),
    ],
)
def test_books_that_do_not_balance(
    tmp_path: Path, arrived: int, reason: str | None, verdict: str
) -> None:
    received = [closing(0, {1: 50}), closing(1, {0: arrived})]
    found = judged(books(tmp_path, BALANCED, received, reason), "accounting")
    assert (found.verdict, "0->1" in found.text) == (verdict, True)


def test_bytes_must_balance_too(tmp_path: Path) -> None:
    received = [closing(0, {1: 50}), closing(1, {0: 84})]
    received[1]["arrivals"]["0"]["bytes"] += 1
    found = judged(books(tmp_path, BALANCED, received), "accounting")
    assert (found.verdict, "-1 bytes" in found.text) == ("fail", True)


def test_what_is_no_frame_is_refused_by_its_receiver(tmp_path: Path) -> None:
    links = [link(0, 2, 10), link(1, 2, 10)]
    nodes = [closing(0, {}), closing(1, {}), closing(2, {0: 8, 1: 9}, malformed=2, truncated=1)]
    assert judged(books(tmp_path / "a", links, nodes), "accounting").verdict == "pass"
    # what is known of the link is not counted twice
    nodes[2]["arrivals"]["0"]["refused"] = {"messages": 2, "bytes": 20}
    assert judged(books(tmp_path / "c", links, nodes), "accounting").verdict == "pass"
    nodes[2]["refused"] = {"malformed": 2, "late": 1}
    found = judged(books(tmp_path / "b", links, nodes), "accounting")
    assert (found.verdict, found.measured["unexplained"]) == ("fail", 1)


def test_books_with_the_dead(tmp_path: Path) -> None:
    # node 1 was killed: what it was sent and did not count, and what it sent
    links, nodes = [link(0, 1, 20), link(0, 2, 20)], [closing(0, {1: 7}), closing(2, {0: 20})]
    run = books(tmp_path, links, nodes)
    found = judged(run, "accounting")
    assert (found.verdict, "node 1 has left no closing" in found.text) == ("unknown", True)
    fault(run, "kill", "active", 0.5, "1", kind="node.crash")
    found = judged(run, "accounting")
    assert (found.verdict, found.measured["to the dead"]) == ("pass", 20)


def test_books_with_the_restarted(tmp_path: Path) -> None:
    # node 1's books begin with its second life
    links = [link(0, 1, 20), link(1, 0, 5)]
    run = books(tmp_path, links, [closing(0, {1: 15}), closing(1, {0: 12})])
    fault(run, "kill", "active", 0.5, "1", kind="node.crash")
    fault(run, "kill", "recovered", 0.7, "1", kind="node.crash")
    found = judged(run, "accounting")
    assert found.verdict == "pass"
    assert (found.measured["to the dead"], found.measured["links not judged"]) == (8, 1)


def test_no_books(tmp_path: Path) -> None:
    assert judged(make(tmp_path, [0.1]), "accounting").verdict == "unknown"


# -- isolation ---------------------------------------------------------------------------------


def test_isolation(tmp_path: Path) -> None:
    links = [link(0, 1, 10, faulted={"split": 4}), link(1, 2, 10, faulted={"split#2": 2})]
    nodes = [closing(node, {(node - 1) % 4: 6}, not_a_neighbor=node) for node in range(4)]
    run = books(tmp_path, links, nodes)
    assert judged(run, "isolation").verdict == "pass"
    assert "6 from or to a non-neighbour refused" in judged(run, "isolation").text
    fault(run, "split", "active", 0.2, "0->1")
    found = judged(run, "isolation")
    assert (found.verdict, "was not counted" in found.text) == ("unknown", True)
    fault(run, "split", "recovered", 0.4, "0->1", messages=4, affected=4)
    found = judged(run, "isolation")
    assert (found.verdict, found.measured["stopped_by_cuts"]) == ("pass", 4)
    # a second time, of which the link knows nothing
    fault(run, "split", "active", 0.5, "0->1", occurrence=1)
    fault(run, "split", "recovered", 0.6, "0->1", occurrence=1, messages=1, affected=1)
    assert judged(run, "isolation").verdict == "unknown"
    fault(run, "split", "active", 0.7, "1->2", occurrence=2)
    fault(run, "split", "recovered", 0.8, "1->2", occurrence=2, messages=3, affected=2)
    found = judged(run, "isolation")
    assert (found.verdict, found.measured["across_cuts"]) == ("fail", 1)


def test_receivers_say_what_crossed_a_cut(tmp_path: Path) -> None:
    links = [link(0, 1, 10, faulted={"split": 4})]
    run = books(tmp_path, links, [closing(node, {}) for node in range(4)])
    fault(run, "split", "active", 0.2, "0->1", round_=3)
    fault(run, "split", "recovered", 0.4, "0->1", round_=6, messages=4, affected=4)
    for source, round_ in ((0, 3), (0, 6), (2, 4)):
        run.event("received", 0.3, 1, fields=json.dumps({"source": source, "round": round_}))
    assert judged(run, "isolation").verdict == "pass"
    run.event("received", 0.3, 1, fields=json.dumps({"source": 0, "round": 4}))
    found = judged(run, "isolation")
    assert (found.verdict, found.measured["across_cuts"]) == ("fail", 1)


def test_a_cut_whose_sender_was_killed(tmp_path: Path) -> None:
    links = [link(1, 0, 9, faulted={"split": 4})]
    run = books(tmp_path, links, [closing(node, {}) for node in (1, 2, 3)])
    fault(run, "split", "active", 0.2, "0->1", "1->0")
    fault(run, "split", "recovered", 0.4, "1->0", messages=4, affected=4)
    assert "on 0->1 was not counted" in judged(run, "isolation").text
    fault(run, "kill", "active", 0.3, "0", kind="node.crash")
    found = judged(run, "isolation")
    assert (found.verdict, "(0) were sent is their senders' word" in found.text) == ("pass", True)


def test_an_arrival_over_a_non_edge(tmp_path: Path) -> None:
    nodes = [closing(node, {(node + 2) % 4: 1} if node == 3 else {}) for node in range(4)]
    found = judged(books(tmp_path / "a", [], nodes), "isolation")
    assert (found.verdict, found.measured["over_non_edges"]) == ("fail", 1)
    missing = judged(books(tmp_path / "b", [], [closing(0, {})]), "isolation")
    assert (missing.verdict, "no closing record of 1, 2, 3" in missing.text) == ("unknown", True)


def test_a_cut_that_was_asked_for_and_never_held(tmp_path: Path) -> None:
    asked = {"faults": [{"id": "split", "fault": "net.partition"}]}
    run = make(tmp_path, [0.1], settings=asked)
    finish(run)
    assert judged(run, "isolation").verdict == "unknown"
    assert "'split' never held" in judged(run, "isolation").text
