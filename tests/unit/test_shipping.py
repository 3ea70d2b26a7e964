"""A run directory as lines of a log, and back."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tidings.errors import RecordError, UserError
from tidings_coordinator.control.watch import NodeView, RunView
from tidings_coordinator.kubernetes.pod import collect, ship
from tidings_coordinator.records.shipping import Collector, Request, ShippedWatcher, shipment

pytestmark = pytest.mark.unit


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A directory that compresses badly, so that it takes several lines."""
    directory = tmp_path / "run"
    (directory / "logs").mkdir(parents=True)
    (directory / "result.json").write_text('{"run": "completed"}')
    (directory / "logs" / "node-0000.log").write_bytes(random.Random(1).randbytes(50_000))
    return directory


def contents(directory: Path) -> dict[str, bytes]:
    files = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


def test_what_is_asked_for_is_taken_out_of_the_log() -> None:
    collector = Collector()
    asked = [Request(3, True), Request(11, False)]
    for line in ["bye", *(request.line for request in asked)]:
        collector.feed(line)
    # cut off where the container ended, or not ours
    for line in (asked[0].line[:-3], 'tidings-kill {"nod": 3}'):
        assert collector.feed(line)
    assert collector.requests == asked


def test_what_was_shipped_is_collected(made: Path, tmp_path: Path) -> None:
    lines = list(shipment(made))
    assert len(lines) > 5
    assert max(map(len, lines)) < 16 << 10
    random.Random(2).shuffle(lines)
    collector = Collector()
    for line in ["waiting for 8 nodes", *lines, *lines[:3], "bye"]:
        assert collector.feed(line) == (line in lines)
    assert collector.complete
    collector.unpack(tmp_path / "back")
    assert contents(tmp_path / "back") == contents(made)


def test_logs_with_holes_or_damage_are_refused(made: Path, tmp_path: Path) -> None:
    lines = list(shipment(made))
    total = len(lines) - 1
    damaged = lines[0][:-8] + ("AAAAAAA=" if not lines[0].endswith("AAAAAAA=") else "BBBBBBB=")
    for given, says in (
        ([], "holds no finished run"),
        (lines[:-1], "holds no finished run"),
        (lines[1:], f"holds {total - 1} of {total} parts"),
        ([lines[0][:40], *lines[1:]], "parts|checksum"),
        ([damaged, *lines[1:]], "checksum"),
    ):
        collector = Collector()
        for line in given:
            collector.feed(line)
        with pytest.raises(RecordError, match=says):
            collector.unpack(tmp_path / "back")
        assert not (tmp_path / "back").exists()


def test_a_log_through_a_pipe(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ship(made)
    log = capsys.readouterr().out.splitlines(keepends=True)
    collect(log, tmp_path / "back")
    assert contents(tmp_path / "back") == contents(made)
    with pytest.raises(UserError, match="is not empty"):
        collect(log, tmp_path / "back")
    with pytest.raises(UserError, match="no run directory"):
        ship(tmp_path / "nowhere")


def test_views_travel_too_and_are_rarer_for_many_nodes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    nodes = {0: NodeView("waiting", 3, 500, 0.5, None), 1: NodeView("computing", 4, 10, None, 2.5)}
    view = RunView("small", "running", 1.25, 12, nodes, (0,))
    watcher = ShippedWatcher()
    for _ in range(3):
        watcher.show(view)
    watcher.show(RunView("small", "ending"))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    collector = Collector()
    assert collector.feed(lines[0])
    assert collector.view == view
    # a line that was cut off is no news, and no fault
    assert collector.feed(lines[0][:30])
    assert collector.view is None
