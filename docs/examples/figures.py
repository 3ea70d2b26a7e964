"""Draws the figures of the pages here from runs in the simulator: python docs/examples/figures.py

With names of examples, only theirs. Prints what each run came to, which the pages quote.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tidings_coordinator.records.reading import Run, read
from tidings_coordinator.records.series import Point
from tidings_coordinator.report import costs
from tidings_coordinator.report.faults import shades
from tidings_coordinator.report.figures import Line, Scale, finite, panel
from tidings_coordinator.reproducing.declaration import Panel
from tidings_coordinator.reproducing.drawing import sheet

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples"
#: what the file expects need not hold for the other variant
EXIT_CHECK_FAILED = 3


@dataclass(frozen=True)
class Plot:
    """One quantity over one cost."""

    title: str
    of: Callable[[Point], float]
    cost: costs.Cost = "seconds"
    scale: Scale = "percent"


def accuracy(point: Point) -> float:
    """The honest nodes' mean."""
    return point.metrics["accuracy"].mean


def loss(point: Point) -> float:
    """The same of the loss."""
    return point.metrics["loss"].mean


def distance(point: Point) -> float:
    """Between the models."""
    return point.consensus_distance


ACCURACY = Plot("accuracy over seconds", accuracy)
BY_ROUNDS = Plot("accuracy over rounds", accuracy, "rounds")
DISTANCE = Plot("consensus distance over seconds", distance, scale="log")
D_PSGD, AD_PSGD = "protocol={kind: d_psgd, lr: 0.1}", "protocol={kind: ad_psgd, lr: 0.1}"

#: for each example, what is drawn of which runs: their label, and what is set for them
PAGES: dict[str, tuple[Sequence[Plot], dict[str, tuple[str, ...]]]] = {
    "fault-partition": (
        (ACCURACY, DISTANCE),
        {"two halves": (), "no fault": ("faults=[]", "expect=[]")},
    ),
    "fault-churn": (
        (ACCURACY, DISTANCE),
        {"from checkpoints": (), "from nothing": ("checkpoint.every=null",)},
    ),
    "fault-straggler": (
        (ACCURACY, Plot("accuracy over bytes", accuracy, "bytes")),
        {"D-PSGD": (), "AD-PSGD": (AD_PSGD,)},
    ),
    "fault-choco-crash": (
        (ACCURACY, DISTANCE),
        {"a crash": (), "none": ("faults=[]",)},
    ),
    "fault-byzantine-turn": (
        (BY_ROUNDS, Plot("loss over rounds", loss, "rounds", "log")),
        {"trimmed mean": (), "mean": (D_PSGD, "expect=[]")},
    ),
    "fault-coordinator": (
        (ACCURACY, BY_ROUNDS),
        {"an isolated coordinator": (), "no fault": ("faults=[]",)},
    ),
    "fault-rewire": (
        (BY_ROUNDS, Plot("accuracy over bytes", accuracy, "bytes")),
        {"ring, exponential, ring": (), "ring": ("faults=[]",)},
    ),
}


def simulated(example: str, settings: Sequence[str], out: Path) -> Run:
    """A run of an example."""
    command = [sys.executable, "-m", "tidings_coordinator.cli", "simulate", "--quiet"]
    command += [str(EXAMPLES / f"{example}.yaml"), "--out", str(out)]
    command += [word for setting in settings for word in ("--set", setting)]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
    if done.returncode not in (0, EXIT_CHECK_FAILED):
        sys.exit(f"{example} {settings}: exit code {done.returncode}")
    return read(out)


def drawn(plot: Plot, runs: dict[str, Run]) -> Panel:
    """The lines of all runs; shaded, when the first one's faults held."""
    first = next(iter(runs.values()))
    lines = [
        Line(
            finite(costs.along(run.points, plot.cost)),
            finite(map(plot.of, run.points)),
            series=number,
        )
        for number, run in enumerate(runs.values())
    ]
    held = shades(first, plot.cost)
    svg = panel(lines, plot.cost, plot.title, scale=plot.scale, shades=held)
    return Panel(plot.title, svg or "", tuple(runs))


def draw(example: str) -> None:
    """The figure of a page, and its numbers."""
    plots, variants = PAGES[example]
    with tempfile.TemporaryDirectory() as folder:
        runs = {
            label: simulated(example, settings, Path(folder) / str(number))
            for number, (label, settings) in enumerate(variants.items())
        }
        print(example)
        for label, run in runs.items():
            print(" ", label)
            for point in run.points:
                at = f"{point.round:6.0f} {point.time_s:8.3f} s"
                print(f"  {at} {accuracy(point):8.4f} {distance(point):10.4g}")
        panels = [drawn(plot, runs) for plot in plots]
        (HERE / f"{example}.svg").write_text(sheet(panels), encoding="utf-8")


if __name__ == "__main__":
    for name in sys.argv[1:] or PAGES:
        draw(name)
