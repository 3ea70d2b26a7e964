"""The report of runs that ended well, badly or not at all."""

from __future__ import annotations

import html
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from support.made_runs import FIDELITY, PROBE, RESULT, PageText, fault, finish, make, seen

from tidings.errors import MissingExtra, RecordError, UserError
from tidings_coordinator.records.reading import read
from tidings_coordinator.report.faults import shades
from tidings_coordinator.report.figures import Shade
from tidings_coordinator.report.page import write_report

pytestmark = pytest.mark.unit

EVIL = "<script>alert('x')</script>&\"{{ 7777 * 3 }}"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that reached its target of 80 % at its third evaluation of four."""
    path = tmp_path_factory.mktemp("runs") / "finished"
    directory = make(path, [0.1, 0.6, 0.82, 0.9])
    directory.event("started", 0.0)
    directory.event("over", 3.0, reason="time limit of 3 s")
    finish(directory)
    write_report(path)
    return path


def test_a_finished_run_shows_its_verdict_its_figures_and_its_cost(finished: Path) -> None:
    text = seen(finished / "report.html")
    for said in (
        "made",
        "d_psgd (lr 0.1)",
        "Run completed",
        "Network as asked for",
        "91.5 %",  # the mean of 0.90, 0.91, 0.92 and 0.93
        "90.0 % to 93.0 % over nodes",
        "20.0 MB",  # of two links each: 2 * (1 + 2 + 3 + 4) MB
        "8 messages (400.0 kB) lost by the links, as asked.",
        "0 → 1 and 7 links like it",
        "15.3 Mbit/s −23.40 % 40 ms 41.1 ms 550 µs NO",
        "31 of 2,400 messages; 24 were to be expected",
        "Mean accuracy of the honest nodes at least 80.0 %: reached.",
        "late 12 6 on 3",
        "time limit of 3 s",
    ):
        assert said in text, said
    assert "Invalid" not in text


def test_faults_and_checks_are_shown(tmp_path: Path) -> None:
    directory = make(tmp_path / "run", [0.1, 0.6, 0.3, 0.7, 0.8])
    fault(directory, "split", "active", 1.5, "0->1", "1->0")
    fault(directory, "split", "recovered", 2.5, "0->1", "1->0", messages=7, affected=6)
    fault(directory, "kill", "active", 2.0, "3", kind="node.crash", how="SIGKILL")
    fault(directory, "stress", "failed", 3.0, "1", kind="node.stress", reason="no cgroup")
    fault(directory, "note", "active", 3.25, "run", kind="mark")
    checks = [
        {"check": "accuracy", "verdict": "pass", "text": "accuracy 81.5 % at the end"},
        {"check": "final_state", "verdict": "unknown", "text": "node 2 unknown"},
        {"check": "recovered", "verdict": "fail", "text": "it was not back"},
    ]
    finish(directory, checks="fail", fidelity={"verdict": "pass"}, expect=checks)
    page = write_report(tmp_path / "run")
    text = seen(page)
    for said in (
        "Network as asked for Checks 1 pass, 1 fail, 1 unknown",
        "accuracy pass accuracy 81.5 % at the end",
        "final state unknown node 2 unknown recovered failed it was not back",
        "split net.partition 0 → 1, 1 → 0 1.000 s 1.500 s 2.500 s 12 of 14 messages",
        "kill node.crash 3 1.000 s 2.000 s the end SIGKILL",
        "stress node.stress 1 1.000 s — — NOT on 1: no cgroup",
        "note mark run 1.000 s 3.250 s —",
    ):
        assert said in text, said
    assert "Invalid" not in text
    # on each of the six figures an edge for each fault that held, an area for each that lasted
    drawn = page.read_text().partition("<h2>Faults</h2>")[0]
    assert drawn.count("stroke-opacity: 0.7") == 18
    assert len(re.findall(r"fill: var\(--s\d\); opacity: 0.16", drawn)) == 12


def test_shades_are_where_the_faults_were(tmp_path: Path) -> None:
    directory = make(tmp_path / "run", [0.1, 0.6, 0.3, 0.7, 0.8])
    fault(directory, "split", "active", 1.5, "0->1")
    fault(directory, "split", "recovered", 2.5, "0->1")
    fault(directory, "late", "active", 9.0, "0->1")
    directory.close()
    run = read(tmp_path / "run")
    # a point a second, 10 rounds and 4 MB apart; of two events, by name, this is the second
    assert shades(run, "seconds") == [Shade(1.5, 2.5, 2)]
    assert shades(run, "rounds") == [Shade(15.0, 25.0, 2)]
    assert shades(run, "bytes") == [Shade(6e6, 10e6, 2)]


def test_faults_that_were_asked_for_and_never_came(tmp_path: Path) -> None:
    asked = {"faults": [{"id": "split", "fault": "net.partition"}]}
    finish(make(tmp_path / "run", [0.1], settings=asked), faults="none")
    assert "No fault was applied." in seen(write_report(tmp_path / "run"))


def test_the_page_asks_for_nothing_and_runs_nothing(finished: Path) -> None:
    page = (finished / "report.html").read_text(encoding="utf-8")
    parser = PageText()
    parser.feed(page)
    names = {tag for tag, _ in parser.tags}
    assert {"svg", "table", "style"} <= names
    assert not names & {"script", "link", "img", "iframe", "object", "base"}
    links = [value for _, attributes in parser.tags for value in attributes.values() if value]
    assert not [value for value in links if re.search(r"(?:https?:)?//|javascript:", value)]
    assert not re.search(r"@import|url\((?!#)", page)
    assert not [key for _, attributes in parser.tags for key in attributes if key.startswith("on")]
    assert "default-src 'none'" in page


def test_what_was_read_is_shown_as_text_whatever_it_says(tmp_path: Path) -> None:
    settings = {"name": EVIL, "protocol": {"kind": EVIL, "lr": EVIL}}
    graph = {"roles": [EVIL] * 4}
    directory = make(tmp_path / "run", [0.1], metric=EVIL, settings=settings, graph=graph)
    directory.event(EVIL, 0.0, fields=json.dumps({EVIL: EVIL}), traceback=f"{EVIL}\n{EVIL}")
    directory.write_json("environment.json", {"host": EVIL, "argv": [EVIL], "packages": {EVIL: 1}})
    finish(directory, run="failed", reason=EVIL, checks="fail")
    fidelity = FIDELITY | {"problems": [EVIL], "probes": [PROBE | {"error": EVIL}]}
    directory.write_json("fidelity.json", fidelity)
    page = write_report(tmp_path / "run").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "23331" not in page
    assert html.escape(EVIL, quote=False).split("'")[0] in page
    assert seen(tmp_path / "run" / "report.html").count(EVIL) >= 8


def test_an_invalid_network_cannot_be_overlooked(tmp_path: Path) -> None:
    directory = make(tmp_path / "run", [0.1, 0.2])
    finish(directory, checks="fail")
    directory.write_json("fidelity.json", FIDELITY | {"problems": ["link 0->1 is slow"]})
    text = seen(write_report(tmp_path / "run"))
    assert "Invalid: the network was not what was asked for link 0->1 is slow" in text
    assert "Network NOT as asked for" in text
    assert "not reached. The best was 21.5 %." in text


def test_a_run_that_was_killed_says_so_and_shows_what_there_is(tmp_path: Path) -> None:
    make(tmp_path / "run", [0.1, 0.85, 0.9]).close()
    series = tmp_path / "run" / "series.jsonl"
    series.write_bytes(series.read_bytes()[:-30])
    text = seen(write_report(tmp_path / "run"))
    assert "Interrupted" in text
    assert "Run interrupted" in text
    assert "As of each node's last evaluation" in text
    assert "What the links carried is not known" in text
    assert "No measurement of the network was recorded." in text
    # the last point is incomplete
    assert "rounds 10" in text
    # three nodes by round 20, and one by round 10
    assert "every byte that left a node 7.0 MB" in text
    assert "wall time" not in text


def test_a_run_that_failed_gives_the_reason(tmp_path: Path) -> None:
    directory = make(tmp_path / "run", [0.1])
    directory.write_json(
        "result.json", RESULT | {"run": "failed", "reason": "node 3 died: SIGKILL"}
    )
    directory.close()
    text = seen(write_report(tmp_path / "run"))
    assert "Failed node 3 died: SIGKILL" in text
    assert "There is only one evaluation of all nodes." in text


def test_a_directory_with_nothing_but_the_experiment(tmp_path: Path) -> None:
    (tmp_path / "experiment.yaml").write_text("name: x\n")
    text = seen(write_report(tmp_path))
    assert text.count("No evaluation was recorded.") == 2
    assert "The graph was not recorded." in text
    assert "The environment was not recorded." in text


@pytest.mark.parametrize(
    "missing", [["graph.json"], ["links.jsonl", "fidelity.json"], ["nodes.jsonl", "resolved.yaml"]]
)
def test_files_may_be_missing(finished: Path, tmp_path: Path, missing: list[str]) -> None:
    shutil.copytree(finished, tmp_path / "run")
    for name in missing:
        (tmp_path / "run" / name).unlink()
    assert "91.5 %" in seen(write_report(tmp_path / "run"))


def test_metrics_without_accuracy_that_diverge(tmp_path: Path) -> None:
    means = [1.0, 1e10, float("inf"), float("nan")]
    settings = {"target": None, "launcher": {"kind": "simulator"}}
    make(tmp_path / "run", means, metric="suboptimality", settings=settings).close()
    text = seen(write_report(tmp_path / "run"))
    assert "Not a finite number at round 20 and after." in text
    assert "not a finite number" in text
    assert "The experiment names no target." in text
    assert "Time was virtual" in text


def test_byzantine_nodes_are_drawn_but_not_averaged(tmp_path: Path) -> None:
    settings = {"byzantine": {"on": [3], "attack": {"kind": "sign_flip"}}}
    make(tmp_path / "run", [0.5], settings=settings, graph={"byzantine": [3]}).close()
    text = seen(write_report(tmp_path / "run"))
    assert "1 Byzantine (sign_flip)" in text
    assert "node 3, peer, Byzantine, sent 0 B" in text
    assert "mean over the 3 honest nodes" in text
    assert "51.0 %" in text


def test_many_events_are_counted_not_shown(tmp_path: Path) -> None:
    directory = make(tmp_path / "run", [])
    for number in range(500):
        directory.event("arrived" if number % 2 else "sent", number / 10, number=number)
    directory.close()
    page = write_report(tmp_path / "run")
    assert "400 more in events.jsonl: sent 200, arrived 200" in seen(page)
    assert page.read_text(encoding="utf-8").count("<td>number ") == 100


def test_the_page_may_go_elsewhere(finished: Path, tmp_path: Path) -> None:
    assert write_report(finished, tmp_path / "page.html") == tmp_path / "page.html"
    with pytest.raises(RecordError, match="cannot write"):
        write_report(finished, tmp_path / "no" / "page.html")
    with pytest.raises(UserError, match="not a run directory"):
        write_report(tmp_path)


@pytest.mark.parametrize("package", ["matplotlib", "jinja2"])
def test_a_missing_package_is_named_by_its_extra(
    finished: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=r"pip install 'tidings\[report\]'"):
        write_report(finished)
