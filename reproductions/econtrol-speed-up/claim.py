"""EControl with more workers: the error that noise leaves falls like 1 / n."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tidings_coordinator.records.reading import Run
from tidings_coordinator.reproducing import (
    Check,
    Panel,
    Reproduction,
    Row,
    Runs,
    Variant,
    points,
    value,
)

WORKERS = (2, 4, 8, 16)
#: rounds after which the start is forgotten
FROM = 200
DENSE = ("protocol={kind: ec, lr: 0.05, compressor: identity}",)


def stationary(run: Run) -> float:
    """|x - x*|^2 on average over the second half."""
    return float(np.mean([value(p, "distance") for p in run.points if p.round > FROM]))


def measure(runs: Runs) -> list[Row]:
    """The stationary error of both for every number of workers."""
    return [
        {
            "workers": str(n),
            "EControl": stationary(runs[f"EControl, n = {n}"]),
            "uncompressed SGD": stationary(runs[f"SGD, n = {n}"]),
        }
        for n in WORKERS
    ]


def verdict(rows: Sequence[Row]) -> list[Check]:
    """The slope on doubly logarithmic axes, and the factor to SGD."""
    errors = [float(row["EControl"]) for row in rows]
    slope = float(np.polyfit(np.log(WORKERS), np.log(errors), 1)[0])
    factor = max(float(row["EControl"]) / float(row["uncompressed SGD"]) for row in rows)
    return [
        Check(
            f"error ~ n^{slope:.2f}, the exponent between -1.25 and -0.75", -1.25 < slope < -0.75
        ),
        Check(f"at most {factor:.1f} times SGD's error, below 3", factor < 3),
    ]


def figure(runs: Runs) -> list[Panel]:
    """Both over the number of workers."""
    rows = measure(runs)
    series = {name: [float(row[name]) for row in rows] for name in ("EControl", "uncompressed SGD")}
    return [points(WORKERS, series, "workers", "|x - x*|² that noise leaves", scale="log")]


REPRODUCTION = Reproduction(
    title="EControl's error falls like 1/n with the number of workers",
    claim=(
        "With stochastic gradients EControl's error is that of SGD to leading order: it falls "
        "like 1/n with n workers, whatever the compressor, without bounds on gradients or on the "
        "difference between the workers' data."
    ),
    source="Gao, Islamov & Stich, ICLR 2024, Theorems 2 to 4",
    variants=tuple(
        variant
        for n in WORKERS
        for variant in (
            Variant(f"EControl, n = {n}", (f"nodes={n}",)),
            Variant(f"SGD, n = {n}", (f"nodes={n}", *DENSE)),
        )
    ),
    measure=measure,
    verdict=verdict,
    figure=figure,
    remarks=(
        "Quadratics with spectrum from 0.5 to 1 and noise of variance 1 in every coordinate; "
        "top-10%, η = δ. The mean of |x - x*|² over rounds 200 to 400 of one run."
    ),
)
