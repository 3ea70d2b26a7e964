"""``tidings reproduce``: make a reproduction's runs, measure them, and judge the claim."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from tidings.errors import MissingExtra, RunError, UserError, nearest
from tidings.registry import import_file
from tidings_coordinator.experiment.load import load
from tidings_coordinator.experiment.model import Experiment
from tidings_coordinator.planning import plan
from tidings_coordinator.records.directory import read_json, write_whole
from tidings_coordinator.records.reading import read
from tidings_coordinator.report import wording
from tidings_coordinator.report.comparison import plain
from tidings_coordinator.report.render import Table
from tidings_coordinator.reproducing.declaration import Check, Reproduction, Row, Runs
from tidings_coordinator.reproducing.drawing import sheet
from tidings_coordinator.running import Outcome

RunOne = Callable[[Experiment, Path, Path], Outcome]

CLAIM, MEASURED, FIGURE = "claim.py", "measured.json", "figure.svg"


@dataclass(frozen=True)
class Found:
    """What a reproduction came to."""

    rows: Sequence[Row]
    checks: Sequence[Check]

    @property
    def reproduced(self) -> bool:
        """Whether all that the claim implies was found."""
        return all(check.passed for check in self.checks)


def names(root: Path) -> list[str]:
    """The reproductions in a folder, in alphabetical order; UserError where it holds none."""
    found = sorted(claim.parent.name for claim in root.glob(f"*/{CLAIM}"))
    if not found:
        raise UserError(f"no reproductions in {root}: run this in a clone, or give --root")
    return found


def declared(root: Path, name: str) -> Reproduction:
    """What ``root/name/claim.py`` declares; UserError where there is no such reproduction."""
    known = names(root)
    if name not in known:
        raise UserError(f"unknown reproduction '{name}'; {nearest(name, known)}")
    file = root / name / CLAIM
    found = getattr(import_file(file.resolve()), "REPRODUCTION", None)
    if not isinstance(found, Reproduction):
        raise UserError(f"{file} declares no REPRODUCTION")
    return found


def reproduce(
    root: Path, name: str, launcher: str | None, out: Path | None, run_one: RunOne
) -> Found:
    """Make the runs below ``out``, measure them, and write table and figure beside the claim.

    All experiments are validated before the first run is started. RunError where a run did not
    complete over the network that it asked for, for then nothing was measured.
    """
    reproduction = declared(root, name)
    where = launcher or reproduction.launcher
    folder = root / name
    jobs = []
    for variant in reproduction.variants:
        file = folder / variant.file
        experiment = load(file, [f"launcher={where}", *variant.settings])
        plan(experiment, "check")
        jobs.append((variant.label, file, experiment))
    directory = out or Path("runs") / f"reproduce-{name}-{datetime.now():%Y%m%d-%H%M%S}"
    paths: dict[str, Path] = {}
    for number, (label, file, experiment) in enumerate(jobs, start=1):
        print(f"[{number}/{len(jobs)}] {label}", flush=True)
        outcome = run_one(experiment, file, directory / f"{number:03d}-{_filename(label)}")
        if outcome.exit_code:
            reason = outcome.result["reason"] or "its network was not what was asked for"
            raise RunError(f"{label}: {outcome.result['run']}: {reason} ({outcome.directory})")
        paths[label] = outcome.directory
    runs = {label: read(path) for label, path in paths.items()}
    rows = reproduction.measure(runs)
    found = Found(rows, reproduction.verdict(rows))
    _write(folder, reproduction, where, runs, found)
    return found


def _filename(label: str) -> str:
    return "".join(c if c.isalnum() or c in "=.,_-" else "_" for c in label)[:120]


def _write(
    folder: Path, reproduction: Reproduction, launcher: str, runs: Runs, found: Found
) -> None:
    measured = {
        "launcher": launcher,
        "date": f"{datetime.now():%Y-%m-%d}",
        "versions": {name: metadata.version(name) for name in ("tidings", "torch", "numpy")},
        "runs": {label: run.result["wall_s"] for label, run in runs.items() if run.result},
        "rows": [dict(row) for row in found.rows],
        "checks": [{"text": check.text, "passed": check.passed} for check in found.checks],
        "reproduced": found.reproduced,
    }
    text = json.dumps(_plain(measured), indent=1, ensure_ascii=False) + "\n"
    write_whole(folder / MEASURED, text)
    try:
        write_whole(folder / FIGURE, sheet(reproduction.figure(runs)))
    except MissingExtra as error:
        print(f"no figure: {error}")


def _plain(data: Any) -> Any:
    """With infinities in words, which JSON does not have, and numbers that people can read."""
    if isinstance(data, Mapping):
        return {key: _plain(item) for key, item in data.items()}
    if isinstance(data, list):
        return [_plain(item) for item in data]
    if isinstance(data, float):
        return float(f"{data:.6g}") if wording.known(data) else str(data)
    return data


def measured(root: Path, name: str) -> dict[str, Any]:
    """The committed table of a reproduction; UserError where it was never run."""
    found = read_json(root / name, MEASURED)
    if found is None:
        raise UserError(f"{root / name} has no {MEASURED}: tidings reproduce {name}")
    return found


def table_of(rows: Sequence[Row]) -> Table:
    """The measured table, its numbers written for people."""
    head = list(rows[0])
    return Table(head, [[cell_text(row[column]) for column in head] for row in rows])


def cell_text(cell: object) -> str:
    """A cell of the table; ``inf`` stands for what never happened or diverged."""
    if isinstance(cell, str):
        return {"inf": "never", "nan": wording.NOTHING}.get(cell, cell)
    if isinstance(cell, float) and cell == float("inf"):
        return "never"
    return wording.number(cell) if isinstance(cell, int | float) else str(cell)


def summary(reproduction: Reproduction, found: Found) -> str:
    """Claim, measured, verdict, for the terminal."""
    lines = [f"claim: {reproduction.claim}", f"source: {reproduction.source}", "", "measured:"]
    lines += [plain(table_of(found.rows)), ""]
    lines += [f"[{'ok' if check.passed else 'NO'}] {check.text}" for check in found.checks]
    lines.append(f"verdict: {'reproduced' if found.reproduced else 'NOT reproduced'}")
    return "\n".join(lines)
