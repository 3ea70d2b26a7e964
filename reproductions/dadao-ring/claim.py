"""DADAO: linear convergence on a ring, at least as fast as its theory says."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tidings_coordinator.reproducing import (
    Check,
    Panel,
    Reproduction,
    Row,
    Runs,
    Variant,
    cell,
    curves,
    value,
)

KAPPAS = (2.5, 10.0)
#: |x - x*|^2 below which float32 models say nothing more
FLOOR = 1e-10


def label(kappa: float) -> str:
    return f"L/μ = {kappa:g}"


def theory(kappa: float) -> float:
    """(1/8) sqrt(nu / L) with nu = mu / 2, per unit of time."""
    return math.sqrt(1 / (2 * kappa)) / 8


def measure(runs: Runs) -> list[Row]:
    """Exponents of |x - x*|^2 over both halves of what float32 can show, after a first quarter."""
    rows: list[Row] = []
    for kappa in KAPPAS:
        run = runs[label(kappa)]
        seen = [
            (p.time_s, value(p, "distance")) for p in run.points if value(p, "distance") > FLOOR
        ]
        seen = seen[len(seen) // 4 :]
        (t0, first), (t1, middle), (t2, last) = seen[0], seen[len(seen) // 2], seen[-1]
        rows.append(
            {
                "problem": label(kappa),
                "theory": theory(kappa),
                "first half": math.log(first / middle) / (t1 - t0),
                "second half": math.log(middle / last) / (t2 - t1),
                "least |x - x*|²": last,
            }
        )
    return rows


def verdict(rows: Sequence[Row]) -> list[Check]:
    """Faster than theory in both halves, and as fast in the second as in the first."""
    checks = []
    for kappa in KAPPAS:
        name = label(kappa)
        halves = [cell(rows, name, half) for half in ("first half", "second half")]
        enough = min(halves) >= theory(kappa)
        checks.append(Check(f"{name}: exponent at least (1/8) (μ/2L)^1/2", enough))
        steady = max(halves) < 1.5 * min(halves)
        checks.append(Check(f"{name}: linear, both halves within a factor 1.5", steady))
    return checks


def figure(runs: Runs) -> list[Panel]:
    """Straight lines on a logarithmic axis."""
    return [curves(runs, "distance", "seconds", title="|x - x*|² over units of time")]


REPRODUCTION = Reproduction(
    title="DADAO converges linearly on a ring",
    claim=(
        "With gossips at the rate (2 χ₁ χ₂)^1/2 and one gradient per node and unit of time, all at "
        "the points of independent Poisson processes, |x - x*|² falls like exp(-c t (μ/L)^1/2)."
    ),
    source="Nabli & Oyallon, ICML 2023, Theorem 1; constants as in the authors' code",
    variants=tuple(Variant(label(kappa), (f"problem.smoothness={kappa:g}",)) for kappa in KAPPAS),
    measure=measure,
    verdict=verdict,
    figure=figure,
    remarks="Eight nodes with quadratics of their own. The theory's exponent is that of the flow. "
    "The first quarter of each curve is left out: it falls faster.",
)
