"""``report.html``: one run on one page that needs nothing but itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tidings_coordinator.records.series import Point
from tidings_coordinator.report import drawing, header, numbers, sections
from tidings_coordinator.report.figures import COSTS, Cost, Line, Target, finite, panel
from tidings_coordinator.report.reading import KINDS, Run, read
from tidings_coordinator.report.render import render, write

#: what known metrics are; others are shown by their name alone
_MEANINGS = {
    "accuracy": "on the test set",
    "loss": "of the global objective at each node's model",
    "suboptimality": "loss above the best possible",
    "distance": "to the optimum",
    "consensus_distance": "mean squared distance of the models from their mean, "
    "estimated from sketches",
}
#: of the kinds of bytes, as names of the palette
_KIND_COLORS = ("s0", "s5", "s4", "s3")


@dataclass(frozen=True)
class Curves:
    """A metric against each cost."""

    title: str
    meaning: str
    panels: list[str]
    notes: list[str]


def write_report(directory: Path) -> Path:
    """Write ``report.html`` into a run directory, complete or not; its path.

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
    return write(directory / "report.html", page)


def _date(run: Run) -> str:
    return f"{run.date.day} {run.date:%B %Y, %H:%M} UTC"


# -- curves ------------------------------------------------------------------------------------


def costs(points: Sequence[Point], cost: Cost) -> list[float]:
    """What each point had cost by then."""
    if cost == "bytes":
        return [point.bytes["total"] for point in points]
    return [point.time_s if cost == "seconds" else point.round for point in points]


def cost_text(cost: Cost, value: float) -> str:
    """'12.3 MB', '7.5 s' or '60'."""
    if cost == "bytes":
        return numbers.size(value)
    return numbers.seconds(value) if cost == "seconds" else numbers.count(value)


def rounds_label(synchronous: bool) -> str:
    """What a round is called."""
    return "rounds" if synchronous else "local steps, mean over nodes"


def _curves(run: Run) -> list[Curves]:
    names = sorted({name for point in run.points for name in point.metrics}, key=_rank)
    return [_curve(run, name) for name in names]


def _rank(name: str) -> tuple[int, str]:
    first = ("accuracy", "loss", "suboptimality", "distance")
    return (first.index(name) if name in first else len(first), name)


def _curve(run: Run, name: str) -> Curves:
    points = [point for point in run.points if name in point.metrics]
    mean, low, high = (
        finite(getattr(point.metrics[name], part) for point in points)
        for part in ("mean", "low", "high")
    )
    panels = []
    for cost in COSTS:
        drawn = panel(
            [Line(finite(costs(points, cost)), mean, low, high)],
            cost,
            name,
            rounds_label=rounds_label(run.synchronous),
            as_percent=name == "accuracy",
            target=_target(run, name, cost),
        )
        panels += [drawn] if drawn else []
    notes = []
    broken = [point for point, value in zip(points, mean, strict=True) if math.isnan(value)]
    if broken:
        where = f"{'round' if run.synchronous else 'step'} {numbers.count(broken[0].round)}"
        notes.append(f"Not a finite number at {where}" + " and after." * (len(broken) > 1))
    if len(points) == 1:
        notes.append("There is only one evaluation of all nodes.")
    return Curves(name, _MEANINGS.get(name, ""), panels, notes)


def _target(run: Run, name: str, cost: Cost) -> Target | None:
    goal = run.goal
    if goal is None or goal.metric != name:
        return None
    text = f"target {numbers.metric(name, goal.value)}"
    for point in run.points:
        if goal.met(point):
            x = costs([point], cost)[0]
            met = [(x, point.metrics[name].mean, 0)]
            return Target(goal.value, text, met, cost_text(cost, x))
    return Target(goal.value, text)


def _consensus(run: Run) -> Curves:
    values = finite(point.consensus_distance for point in run.points)
    panels = []
    for cost in COSTS:
        line = Line(finite(costs(run.points, cost)), values)
        label = rounds_label(run.synchronous)
        drawn = panel([line], cost, "consensus distance", rounds_label=label)
        panels += [drawn] if drawn else []
    return Curves("consensus distance", _MEANINGS["consensus_distance"], panels, [])


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
        ("nodes", numbers.count(graph.get("nodes"))),
        ("directed links", numbers.count(len(graph.get("arcs") or ()))),
        ("mixing weights", str(mixing or "").replace("_", " ")),
        ("spectral gap", numbers.number(graph.get("spectral_gap"))),
    ]
    if (phases := graph.get("phases") or 1) > 1:
        every = numbers.plural(graph.get("rounds_per_phase") or 1, "round")
        facts.append(("graphs", f"{phases} in turn, each for {every}; drawn is their union"))
    loads = [link["bytes"]["total"] for link in run.links]
    if loads:
        low, high = numbers.size(min(loads)), numbers.size(max(loads))
        mean = numbers.size(sum(loads) / len(loads))
        text = f"{mean} each" if low == high else f"{low} to {high}, {mean} on average"
        facts.append(("bytes on a link", text))
    return [(what, text) for what, text in facts if text and text != numbers.NOTHING]


# -- cost to target ----------------------------------------------------------------------------


def _target_text(run: Run) -> str:
    goal = run.goal
    if goal is None:
        return "The experiment names no target."
    sign = "at least" if goal.metric == "accuracy" else "at most"
    text = f"Mean {goal.metric} of the honest nodes {sign} {numbers.metric(goal.metric, goal.value)}"
    if run.cost is not None:
        return f"{text}: reached."
    means = [point.metrics[goal.metric].mean for point in run.points if goal.metric in point.metrics]
    reached = [mean for mean in means if math.isfinite(mean)]
    if not reached:
        return f"{text}: not reached."
    best = max(reached) if goal.metric == "accuracy" else min(reached)
    return f"{text}: not reached. The best was {numbers.metric(goal.metric, best)}."


def _cost(run: Run) -> list[header.Figure]:
    cost = run.cost
    if cost is None:
        return []
    rounds = "rounds" if run.synchronous else "local steps"
    return [
        header.Figure("bytes", numbers.size(cost["bytes"]), "sent by all nodes"),
        header.Figure("emulated time", numbers.seconds(cost["time_s"])),
        header.Figure(rounds, numbers.count(cost["rounds"])),
    ]
