"""``comparison.html``: several runs over each other, and what each setting cost to the target."""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np

from tidings.errors import UserError
from tidings_coordinator.records.directory import write_whole
from tidings_coordinator.records.reading import Run, is_run, metric_order, read
from tidings_coordinator.records.series import Goal, cost_to
from tidings_coordinator.report import costs, header, palette, wording
from tidings_coordinator.report.figures import Line, Target, finite, panel
from tidings_coordinator.report.grouping import Group, group
from tidings_coordinator.report.page import Curves, meaning
from tidings_coordinator.report.render import Table, render

#: letters of a setting on one line of the terminal's table
_SETTING_WIDTH = 44


@dataclass(frozen=True)
class Listed:
    """A run in the list at the end of the page."""

    setting: str
    directory: str
    #: relative, of the run's report; empty where there is none
    link: str
    seed: str
    verdict: str


def compare(directories: Sequence[Path], out: Path) -> tuple[str, Path]:
    """Write ``comparison.html`` into ``out``, made where needed; the table as text, and the page.

    Runs that differ only in their seed are one setting: a line for the mean, a band from the lowest
    to the highest seed, as far as all of them got. The target is the first that a run names. If
    none does, it is the highest accuracy that every run reached at some time, rounded down.

    UserError for directories that are no runs, MissingExtra without the extra "report".
    """
    strangers = [str(path) for path in directories if not is_run(path)]
    if strangers or not directories:
        raise UserError(f"not run directories: {', '.join(strangers) or 'none were given'}")
    runs = [read(path) for path in directories]
    groups = group(runs)
    goal, target = _target(runs)
    table = _table(groups, goal)
    notes = _warnings(runs)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the directory {out}: {error.strerror}") from error
    common = [part for part in header.one_line(runs[0]) if _all_say(runs, part)]
    page = render(
        "comparison.html.j2",
        title=_title(runs),
        common=common,
        notes=notes,
        counts=_counts(groups),
        legend=[
            (palette.series_name(number), number >= palette.SERIES, of.label)
            for number, of in enumerate(groups)
        ],
        several=any(len(of.runs) > 1 for of in groups),
        curves=[_overlay(groups, metric, goal) for metric in _metrics(runs, goal)],
        target=target,
        dots=goal is not None,
        table=table,
        listed=_listed(groups, out),
    )
    text = "\n".join([target, "", plain(table), *(["", *notes] if notes else [])])
    path = out / "comparison.html"
    write_whole(path, page)
    return text, path


def _title(runs: Sequence[Run]) -> str:
    names = list(dict.fromkeys(run.name for run in runs))
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _all_say(runs: Sequence[Run], part: str) -> bool:
    return all(part in header.one_line(run) for run in runs)


def _counts(groups: Sequence[Group]) -> str:
    runs = wording.plural(sum(len(of.runs) for of in groups), "run")
    return f"{runs}, {wording.plural(len(groups), 'setting')}"


def _warnings(runs: Sequence[Run]) -> list[str]:
    """Runs that are not what they were meant to be."""
    found = []
    for run in runs:
        for verdict in header.verdicts(run):
            if verdict.level == "bad" or verdict.says == "aborted":
                found.append(f"{run.path.name}: {verdict.about.lower()} {verdict.says}")
        if not run.points:
            found.append(f"{run.path.name}: no evaluation of all nodes")
    return found


# -- target ------------------------------------------------------------------------------------


def _target(runs: Sequence[Run]) -> tuple[Goal | None, str]:
    """What the runs are held to, and what is to be said about it."""
    for run in runs:
        if run.goal is not None:
            text = f"Target: {_goal_text(run.goal)}"
            if all(other.goal == run.goal for other in runs):
                return run.goal, text + "."
            return run.goal, f"{text}, as in {run.path.name}; not all runs have this target."
    best = [run.best("accuracy") for run in runs]
    known = [value for value in best if value is not None]
    if len(known) < len(runs):
        return None, "No run names a target, and not all of them measured accuracy."
    goal = Goal("accuracy", math.floor(1000 * min(known)) / 1000)
    return goal, f"No run names a target. Every one reached {_goal_text(goal)} at some time."


def _goal_text(goal: Goal) -> str:
    sign = "at least" if goal.metric == "accuracy" else "at most"
    return f"{goal.metric} {sign} {wording.metric(goal.metric, goal.value)}"


# -- overlays ----------------------------------------------------------------------------------


def _metrics(runs: Sequence[Run], goal: Goal | None) -> list[str]:
    """Accuracy where there is any, else loss and suboptimality; and the target's metric."""
    there = {name for run in runs for point in run.points for name in point.metrics}
    first = ["accuracy"] if "accuracy" in there else ["loss", *({"suboptimality"} & there)]
    return list(dict.fromkeys([*first, *([goal.metric] if goal else [])]))


def _overlay(groups: Sequence[Group], metric: str, goal: Goal | None) -> Curves:
    panels = []
    synchronous = all(run.synchronous for of in groups for run in of.runs if run.points)
    for cost in costs.COSTS:
        lines = [mean_line(of, number, metric, cost) for number, of in enumerate(groups)]
        target = None
        if goal is not None and goal.metric == metric:
            target = Target(goal.value, _met(groups, goal, cost))
        drawn = panel(
            [line for line in lines if line is not None],
            cost,
            metric,
            rounds_label=costs.rounds_label(synchronous),
            scale="percent" if metric == "accuracy" else "auto",
            target=target,
        )
        panels += [drawn] if drawn else []
    return Curves(metric, meaning(metric, goal), panels, [])


def mean_line(of: Group, number: int, metric: str, cost: costs.Cost) -> Line | None:
    """Mean and band over the seeds, at every x at which one was evaluated and all have got to.

    Between a seed's evaluations its curve is straight. None where none measured the metric.
    """
    curves = []
    for run in of.runs:
        points = [point for point in run.points if metric in point.metrics]
        if points:
            y = finite(point.metrics[metric].mean for point in points)
            curves.append((finite(costs.along(points, cost)), y))
    if not curves:
        return None
    if len(curves) == 1:
        return Line(*curves[0], series=number)
    first, last = max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves)
    grid = np.unique(np.concatenate([x for x, _ in curves]))
    grid = grid[(grid >= first) & (grid <= last)]
    seeds = np.stack([np.interp(grid, x, y) for x, y in curves])
    return Line(grid, seeds.mean(axis=0), seeds.min(axis=0), seeds.max(axis=0), number)


def _met(groups: Sequence[Group], goal: Goal, cost: costs.Cost) -> list[tuple[float, float, int]]:
    """Where the settings are at the target, on average over the seeds that reach it."""
    found = []
    for number, of in enumerate(groups):
        if reached := _reached(of, goal):
            mean = float(np.mean([one[costs.KEYS[cost]] for one in reached]))
            found.append((mean, goal.value, number))
    return found


def _reached(of: Group, goal: Goal) -> list[dict[str, float]]:
    """The cost to target of each run that reached it."""
    return [cost for run in of.runs if (cost := cost_to(goal, run.points)) is not None]


# -- tables ------------------------------------------------------------------------------------


def _table(groups: Sequence[Group], goal: Goal | None) -> Table:
    """A row for each setting: cost to target, and how it ended."""
    last = [[run.last for run in of.runs if run.last] for of in groups]
    names = {name for points in last for point in points for name in point.metrics}
    shown = sorted(names & {"accuracy", "loss", "suboptimality"}, key=metric_order)[:2]
    head = ["setting", "runs", *(f"final {name}" for name in shown)]
    rows = []
    for of, points in zip(groups, last, strict=True):
        row = [of.label, str(len(of.runs))]
        for name in shown:
            values = [point.metrics[name].mean for point in points if name in point.metrics]
            row.append(_metric(name, values))
        if goal is not None:
            reached = _reached(of, goal)
            row.append(f"{len(reached)} of {len(of.runs)}")
            for cost in costs.COSTS:
                values = [one[costs.KEYS[cost]] for one in reached]
                row.append(costs.spread(cost, values) if values else wording.NOTHING)
        rows.append(row)
    if goal is not None:
        head += ["reached target", "bytes to target", "time", "rounds"]
    return Table(head, rows)


def _metric(name: str, values: Sequence[float]) -> str:
    if not values or not all(math.isfinite(value) for value in values):
        return wording.NOTHING if not values else "not finite"
    if name == "accuracy":
        return f"{costs.mean_and_deviation([100 * value for value in values])} %"
    return costs.mean_and_deviation(values)


def plain(table: Table) -> str:
    """The table for the terminal; long settings go over several lines."""
    rows: list[list[str]] = []
    for setting, *others in [table.head, *table.rows]:
        first, *rest = textwrap.wrap(setting, _SETTING_WIDTH, break_on_hyphens=False) or [""]
        rows.append([first, *others])
        rows += [["  " + line, *[""] * len(others)] for line in rest]
    widths = [max(len(row[column]) for row in rows) for column in range(len(table.head))]
    lines = [
        "  ".join(
            cell.ljust(width) if column < table.left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def _listed(groups: Sequence[Group], out: Path) -> list[Listed]:
    """All runs with a link to their reports."""
    found = []
    for of in groups:
        for run in of.runs:
            report = run.path / "report.html"
            link = quote(Path(os.path.relpath(report, out)).as_posix()) if report.exists() else ""
            said = ", ".join(f"{v.about.lower()} {v.says}" for v in header.verdicts(run))
            seed = run.at("seed")
            words = wording.NOTHING if seed is None else str(seed)
            found.append(Listed(of.label, run.path.name, link, words, said))
    return found
