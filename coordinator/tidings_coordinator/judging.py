"""``tidings judge``: the checks of a run judged again, or others in their place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tidings.errors import UserError
from tidings_coordinator.checks.base import judge_all
from tidings_coordinator.experiment.load import load_expectations
from tidings_coordinator.experiment.selectors import Resolver
from tidings_coordinator.records.reading import read


def judge(directory: Path, file: Path | None) -> list[dict[str, Any]]:
    """The checks of ``expect`` in ``file``, or in the run's own resolved.yaml, on an old run.

    Nothing is written. UserError where ``directory`` is no run, and for mistakes in the file.
    """
    run = read(directory)
    groups = {name: tuple(nodes) for name, nodes in (run.at("network", "groups") or {}).items()}
    events = [str(event["id"]) for event in run.at("faults") or ()]
    source = file or directory / "resolved.yaml"
    expected = load_expectations(source, Resolver(groups, run.node_count), events)
    if not expected:
        raise UserError(f"{source} expects nothing; name a file with checks by --expect")
    return judge_all(expected, run)


def told(judged: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each check, its verdict first."""
    words = {"pass": "pass", "fail": "FAIL", "unknown": "unknown"}
    return [f"{words[each['verdict']]:>7}  {each['check']}: {each['text']}" for each in judged]
