"""``report.html``: one run on one page that needs nothing but itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tidings_coordinator.records.directory import write_whole
from tidings_coordinator.records.reading import KINDS, Run, metric_order, read
from tidings_coordinator.records.series import Goal
from tidings_coordinator.report import (
    costs,
    drawing,
    faults,
    header,
    palette,
    sections,
    timeline,
    wording,
)
from tidings_coordinator.report.figures import Line, Target, finite, panel
from tidings_coordinator.report.render import render

#: what known metrics are; others are shown by their name alone
_MEANINGS = {
    "accuracy": "of every node's own model",
    "loss": "of every node's own model",
    "suboptimality": "loss above the least possible",
    "distance": "squared, to the minimiser",
    "consensus_distance": "mean squared distance of the models from their mean, "
    "estimated from sketches",
}
#: of the kinds of bytes, as names of the palette
_KIND_COLORS = ("s0", "s5", "s4", "s3", "s2")


@dataclass(frozen=True)
class Curves:
    """A metric against each cost."""

    title: str
    meaning: str
    panels: list[str]
    notes: list[str]


def write_report(directory: Path, out: Path | None = None) -> Path:
    """Write a run's page, into its directory as ``report.html`` or to ``out``; its path.

    The directory may be that of a run that was broken off.

    UserError where the directory is no run, MissingExtra without the extra "report", RecordError
    where the page cannot be written.
    """
    run = read(directory)
    page = render(
        "report.html.j2",
        run=run,
        date=_date(run),
        parts_line=header.one_line(run),
        banners=header.banners(run),
        verdicts=header.verdicts(run),
        figures=header.key_figures(run),
        curves=_curves(run),
        consensus=_consensus(run),
        timeline=timeline.draw(run),
        checks=faults.check_table(run),
        faults=faults.fault_table(run),
        fault_colors={e: palette.series_name(n) for e, n in faults.colors(run).items()},
        network=_network(run),
        facts=_facts(run),
        shares=sections.byte_shares(run),
        kinds=KINDS,
        colors=_KIND_COLORS,
        bytes=sections.byte_table(run) if run.sent() else None,
        byte_notes=sections.byte_notes(run),
        refused=sections.counted(run, "refused"),
        counters=sections.counted(run, "counters"),
        fidelity=sections.fidelity_table(run),
        fidelity_notes=sections.fidelity_notes(run),
        problems=header.problems(run),
        target=_target_text(run),
        cost=_cost(run),
        events=sections.events(run),
        environment=sections.environment(run),
    )
    path = out or directory / "report.html"
    write_whole(path, page)
    return path


def _date(run: Run) -> str:
    return f"{run.date.day} {run.date:%B %Y, %H:%M} UTC"


# -- curves ------------------------------------------------------------------------------------


def _curves(run: Run) -> list[Curves]:
    names = sorted({name for point in run.points for name in point.metrics}, key=metric_order)
    return [_curve(run, name) for name in names]


def _curve(run: Run, name: str) -> Curves:
    points = [point for point in run.points if name in point.metrics]
    mean, low, high = (
        finite(getattr(point.metrics[name], part) for point in points)
        for part in ("mean", "low", "high")
    )
    panels = []
    for cost in costs.COSTS:
        drawn = panel(
            [Line(finite(costs.along(points, cost)), mean, low, high)],
            cost,
            name,
            rounds_label=costs.rounds_label(run.synchronous),
            scale="percent" if name == "accuracy" else "auto",
            target=_target(run, name, cost),
            shades=faults.shades(run, cost),
        )
        panels += [drawn] if drawn else []
    notes = []
    broken = [point for point, value in zip(points, mean, strict=True) if math.isnan(value)]
    if broken:
        where = f"{'round' if run.synchronous else 'step'} {wording.count(broken[0].round)}"
        notes.append(f"Not a finite number at {where}" + " and after." * (len(broken) > 1))
    if len(points) == 1:
        notes.append("There is only one evaluation of all nodes.")
    return Curves(name, meaning(name, run.goal), panels, notes)


def _target(run: Run, name: str, cost: costs.Cost) -> Target | None:
    if run.goal is None or run.goal.metric != name:
        return None
    for point in run.points:
        if run.goal.met(point):
            x = costs.along([point], cost)[0]
            met = [(x, point.metrics[name].mean, 0)]
            return Target(run.goal.value, met, costs.text(cost, x))
    return Target(run.goal.value)


def meaning(metric: str, goal: Goal | None) -> str:
    """What a metric's figures show."""
    words = [_MEANINGS[metric]] if metric in _MEANINGS else []
    if goal is not None and goal.metric == metric:
        words.append(f"dashed: target {wording.metric(metric, goal.value)}")
    return "; ".join(words)


def _consensus(run: Run) -> Curves:
    values = finite(point.consensus_distance for point in run.points)
    title, words = "consensus distance", _MEANINGS["consensus_distance"]
    if not np.isfinite(values).any():
        text = "The consensus distance was never a finite number."
        return Curves(title, words, [], [text if run.points else "No evaluation was recorded."])
    if not values.any():
        return Curves(title, words, [], ["The models were the same at every evaluation."])
    panels = []
    for cost in costs.COSTS:
        line = Line(finite(costs.along(run.points, cost)), values)
        label = costs.rounds_label(run.synchronous)
        drawn = panel(
            [line],
            cost,
            "consensus distance",
            rounds_label=label,
            scale="log",
            shades=faults.shades(run, cost),
        )
        panels += [drawn] if drawn else []
    return Curves(title, words, panels, [])


# -- network -----------------------------------------------------------------------------------


def _network(run: Run) -> drawing.Drawing | None:
    loads = {(link["source"], link["target"]): link["bytes"]["total"] for link in run.links}
    return drawing.draw(run.graph, loads, run.sent())


def _facts(run: Run) -> list[tuple[str, str]]:
    """About the graph and the loads of its links."""
    graph = run.graph
    mixing = run.at("topology", "mixing", "kind")
    facts = [
        ("topology", str(run.at("topology", "kind") or "")),
        ("nodes", wording.count(graph.get("nodes"))),
        ("directed links", wording.count(len(graph.get("arcs") or ()))),
        ("mixing weights", str(mixing or "").replace("_", " ")),
        ("spectral gap", wording.number(graph.get("spectral_gap"))),
    ]
    if (phases := graph.get("phases") or 1) > 1:
        every = wording.plural(graph.get("rounds_per_phase") or 1, "round")
        facts.append(("graphs", f"{phases} in turn, each for {every}; drawn is their union"))
    loads = [link["bytes"]["total"] for link in run.links]
    if loads:
        low, high = wording.size(min(loads)), wording.size(max(loads))
        mean = wording.size(sum(loads) / len(loads))
        text = f"{mean} each" if low == high else f"{low} to {high}, {mean} on average"
        facts.append(("bytes on a link", text))
    return [(what, text) for what, text in facts if text and text != wording.NOTHING]


# -- cost to target ----------------------------------------------------------------------------


def _target_text(run: Run) -> str:
    goal = run.goal
    if goal is None:
        return "The experiment names no target."
    sign = "at least" if goal.metric == "accuracy" else "at most"
    value = wording.metric(goal.metric, goal.value)
    text = f"Mean {goal.metric} of the honest nodes {sign} {value}"
    if run.cost is not None:
        return f"{text}: reached."
    best = run.best(goal.metric)
    if best is None:
        return f"{text}: not reached."
    return f"{text}: not reached. The best was {wording.metric(goal.metric, best)}."


def _cost(run: Run) -> list[header.Figure]:
    cost = run.cost
    if cost is None:
        return []
    rounds = "rounds" if run.synchronous else "local steps"
    return [
        header.Figure("bytes", wording.size(cost["bytes"]), "sent by all nodes"),
        header.Figure("emulated time", wording.seconds(cost["time_s"])),
        header.Figure(rounds, wording.count(cost["rounds"])),
    ]
