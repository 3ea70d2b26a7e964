"""Several runs over each other: groups, targets, the table, and what is said about bad runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.made_runs import finish, make, seen

from tidings.errors import UserError
from tidings_coordinator.records.reading import Run
from tidings_coordinator.records.series import Point, Spread
from tidings_coordinator.report.comparison import compare, mean_line
from tidings_coordinator.report.grouping import Group

pytestmark = pytest.mark.unit


def run(path: Path, name: str, means: list[float], **settings: Any) -> Path:
    finish(make(path / name, means, settings=settings))
    return path / name


def points(*means: tuple[float, float]) -> Run:
    """A run with these (round, accuracy)."""
    spread = [(round_, {"accuracy": Spread(mean, 0.0, 1.0)}) for round_, mean in means]
    found = [Point(round_, round_, {"total": 0}, 0, metrics, 0.0) for round_, metrics in spread]
    return Run(Path("run"), {}, "", found, {})


def test_the_band_is_over_seeds_and_ends_with_the_first_that_ends() -> None:
    seeds = [points((0, 0.0), (10, 0.4), (30, 0.8)), points((0, 0.2), (20, 0.4)), points()]
    line = mean_line(Group("", seeds), 1, "accuracy", "rounds")
    assert line is not None
    assert line.low is not None
    assert line.high is not None
    np.testing.assert_allclose(line.x, [0, 10, 20])
    np.testing.assert_allclose(line.low, [0.0, 0.3, 0.4])
    np.testing.assert_allclose(line.high, [0.2, 0.4, 0.6])
    np.testing.assert_allclose(line.y, [0.1, 0.35, 0.5])
    assert mean_line(Group("", seeds), 1, "loss", "rounds") is None


def test_seeds_are_grouped_and_settings_are_not(tmp_path: Path) -> None:
    choco = {"protocol": {"kind": "choco_sgd", "lr": 0.1, "gamma": 0.3}}
    runs = [
        run(tmp_path, "a", [0.1, 0.5, 0.85]),
        run(tmp_path, "b", [0.1, 0.85], seed=8),
        run(tmp_path, "c", [0.1, 0.3], **choco),
    ]
    text, page = compare(runs, tmp_path / "out" / "deep")
    assert page == tmp_path / "out" / "deep" / "comparison.html"
    lines = [line.split() for line in text.splitlines()]
    assert text.startswith("Target: accuracy at least 80.0 %.")
    (d_psgd,) = [line for line in lines if "protocol.kind=d_psgd" in line]
    (choco_sgd,) = [line for line in lines if "protocol.kind=choco_sgd" in line]
    # 4 nodes send 1 MB in 10 rounds each: 8 MB and 4 MB to the target
    assert "6.0 ± 2.8 MB" in " ".join(d_psgd)
    assert "15.0 ± 7.1" in " ".join(d_psgd)
    assert "2 of 2" in " ".join(d_psgd)
    assert "0 of 1" in " ".join(choco_sgd)
    shown = seen(page)
    assert "3 runs, 2 settings" in shown
    assert "2 of 2" in shown
    assert 'href="../../a/report.html"' not in page.read_text(encoding="utf-8")


def test_reports_are_linked_where_there_are_some(tmp_path: Path) -> None:
    (run(tmp_path, "a b", []) / "report.html").write_text("")
    _, page = compare([tmp_path / "a b"], tmp_path)
    assert '<a href="a%20b/report.html">a b</a>' in page.read_text(encoding="utf-8")


def test_different_targets_are_told(tmp_path: Path) -> None:
    runs = [
        run(tmp_path, "a", [0.1, 0.5], target=None),
        run(tmp_path, "b", [0.1, 0.5], target={"accuracy": "30%"}),
    ]
    text, _ = compare(runs, tmp_path / "out")
    assert "Target: accuracy at least 30.0 %, as in b; not all runs have this target." in text
    assert "2 of 2" in text


def test_without_a_target_it_is_what_all_reached(tmp_path: Path) -> None:
    none = {"target": None, "stop": {"accuracy": None}}
    runs = [
        run(tmp_path, "a", [0.1, 0.7, 0.6], **none),
        run(tmp_path, "b", [0.1, 0.5, 0.9], **none, nodes=4, seed=1),
    ]
    text, _ = compare(runs, tmp_path / "out")
    # the mean is 0.015 above node 0's
    assert "Every one reached accuracy at least 71.5 % at some time." in text


def test_runs_that_are_not_what_they_should_be_are_named(tmp_path: Path) -> None:
    finish(make(tmp_path / "bad", [0.1, 0.9]), checks="fail")
    make(tmp_path / "killed", []).close()
    text, page = compare([tmp_path / "bad", tmp_path / "killed"], tmp_path / "out")
    for said in ("bad: network NOT as asked for", "killed: run interrupted"):
        assert said in text
        assert said in seen(page)


def test_strangers_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="stranger"):
        compare([run(tmp_path, "a", []), tmp_path / "stranger"], tmp_path / "out")
    with pytest.raises(UserError, match="none were given"):
        compare([], tmp_path / "out")
    assert not (tmp_path / "out").exists()
