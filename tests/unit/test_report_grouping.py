"""Which runs are one setting, and the words that tell settings apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tidings_coordinator.records.reading import Run
from tidings_coordinator.report.comparison import plain
from tidings_coordinator.report.grouping import flatten, group, labels
from tidings_coordinator.report.render import Table

pytestmark = pytest.mark.unit


def run(name: str, **resolved: Any) -> Run:
    return Run(Path("runs") / name, {"name": "x"} | resolved, "", [], {})


def test_flatten_joins_keys_and_writes_lists_on_one_line() -> None:
    nested = {"a": {"b": 1, "c": {"d": None}}, "e": [1, {"f": 2}], "g": {}}
    assert flatten(nested) == {"a.b": 1, "a.c.d": None, "e": "[1, {f: 2}]", "g": "{}"}


def test_runs_that_differ_in_seed_target_or_metrics_are_one_setting() -> None:
    runs = [
        run("a", seed=1, target=None, metrics={"serve": True}),
        run("b", seed=2, target={"loss": 1.0}, metrics={"serve": False}),
        run("c", seed=1, nodes=8, target=None),
    ]
    groups = group(runs)
    assert [[member.path.name for member in of.runs] for of in groups] == [["a", "b"], ["c"]]


def test_a_single_setting_is_called_by_its_name() -> None:
    assert [of.label for of in group([run("a", seed=1), run("b", seed=2)])] == ["x"]


def test_a_run_without_settings_stands_alone() -> None:
    unknown = Run(Path("runs/lost"), {}, "", [], {})
    assert [of.label for of in group([unknown, run("a", nodes=8)])] == ["x", "lost"]


def test_labels_show_what_differs_and_nothing_else() -> None:
    settings = [
        {"name": "x", "nodes": 8, "protocol.kind": "d_psgd", "network.rate": "10Mbit/s"},
        {"name": "x", "nodes": 8, "protocol.kind": "choco_sgd", "network.rate": "10Mbit/s"},
        {"name": "x", "nodes": 8, "protocol.kind": "d_psgd", "network.rate": "20Mbit/s"},
    ]
    assert labels(settings) == [
        "protocol.kind=d_psgd, network.rate=10Mbit/s",
        "protocol.kind=choco_sgd, network.rate=10Mbit/s",
        "protocol.kind=d_psgd, network.rate=20Mbit/s",
    ]


def test_a_kind_stands_for_the_parameters_that_come_with_it() -> None:
    d_psgd = {"protocol.kind": "d_psgd", "protocol.lr": 0.1}
    choco = {
        "protocol.kind": "choco_sgd",
        "protocol.lr": 0.1,
        "protocol.gamma": 0.3,
        "protocol.compressor.kind": "top_k",
        "protocol.compressor.ratio": "5%",
    }
    assert labels([d_psgd, choco]) == ["protocol.kind=d_psgd", "protocol.kind=choco_sgd"]
    # but not for those that differ among runs of that kind
    assert labels([d_psgd, choco, choco | {"protocol.gamma": 0.5}]) == [
        "protocol.kind=d_psgd",
        "protocol.kind=choco_sgd, protocol.gamma=0.3",
        "protocol.kind=choco_sgd, protocol.gamma=0.5",
    ]


def test_what_is_not_set_is_named_only_where_nothing_else_is() -> None:
    attacked = {"nodes": 8, "byzantine.attack.kind": "ipm"}
    assert labels([{"nodes": 8, "byzantine": None}, attacked]) == [
        "byzantine=none",
        "byzantine.attack.kind=ipm",
    ]
    assert labels([{"stop.rounds": None, "stop.time": "5s"}, {"stop.rounds": 9}]) == [
        "stop.time=5s",
        "stop.rounds=9",
    ]


def test_the_name_is_named_only_where_nothing_else_differs() -> None:
    assert labels([{"name": "a", "n": 1}, {"name": "b", "n": 2}]) == ["n=1", "n=2"]
    assert labels([{"name": "a", "n": 1}, {"name": "b", "n": 1}]) == ["name=a", "name=b"]


def test_the_terminal_s_table_is_aligned_and_long_settings_are_wrapped() -> None:
    long = ", ".join(f"section.key_{number}=value" for number in range(4))
    lines = plain(Table(["setting", "runs"], [["a=1", "3"], [long, "12"]])).splitlines()
    assert lines[0].split() == ["setting", "runs"]
    assert {len(lines[row]) for row in (0, 1, 2, 3)} == {len(lines[1])}
    assert lines[3].endswith("  12")
    assert " ".join(" ".join(lines[3:]).replace("12", "").split()) == long
    assert max(map(len, lines)) <= 60
