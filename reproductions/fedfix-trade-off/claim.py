"""FedFix's window: waiting on one side, variance on the other, and no bias on either."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tidings.units import Duration
from tidings_coordinator.records.reading import Run
from tidings_coordinator.reproducing import (
    Check,
    Panel,
    Reproduction,
    Row,
    Runs,
    Variant,
    curves,
    of_node,
    points,
)

WINDOWS_MS = (100, 200, 300, 500)
PLAIN = "p_k"
FED_AVG = "FedAvg"
FASTEST_S = 0.099


def times_s(run: Run) -> NDArray[np.float64]:
    """What clients take for an update, by the experiment file."""
    factors = np.ones(len(run.at("problem", "centers")))
    for slow in run.at("compute", "slow"):
        factors[np.array(slow["on"]) - 1] *= slow["factor"]
    return FASTEST_S * factors


def windows(run: Run) -> NDArray[np.float64]:
    """ceil(tau_k / window) of every client; 1 for FedAvg."""
    if run.at("protocol", "kind") == "fed_avg":
        return np.ones(len(times_s(run)))
    return np.ceil(times_s(run) / float(Duration.parse(run.at("protocol", "window"))) - 1e-9)


def waiting(run: Run) -> float:
    """The part of their time that clients do not compute, by the updates that they sent."""
    sent = {link["source"]: link["messages"] for link in run.links if link["target"] == 0}
    tau_s = times_s(run)
    busy = [sent[k] * tau_s[k - 1] for k in range(1, len(tau_s) + 1)]
    return 1 - float(np.mean(busy)) / run.points[-1].time_s


def expected(run: Run) -> tuple[float, float]:
    """Mean and variance of x, by its recursion over the windows of the run's second half.

    With c_k = ceil(tau_k / window), client k sends at the end of every c_k-th window, from the
    model of c_k windows before::

        x^(m+1) = x^m + sum over k with m + 1 divisible by c_k of d_k lr (b_k - x^(m+1-c_k) + noise)

    which is linear, so that mean and covariance of the last models follow exactly.
    """
    counts, centers = windows(run), np.array(run.at("problem", "centers"))
    lr, noise = float(run.at("protocol", "lr")), float(run.at("problem", "noise"))
    corrected = run.at("protocol", "unbiased") is not False
    steps = lr * (counts if corrected else np.ones(len(counts))) / len(counts)
    depth = int(counts.max())
    mean = np.full(depth, float(run.at("problem", "start")))
    cov = np.zeros((depth, depth))
    seen: list[tuple[float, float]] = []
    for m in range(math.ceil(run.points[-1].round)):
        coming = (m + 1) % counts == 0
        move = np.eye(depth, k=-1)
        move[0, 0] = 1.0
        np.subtract.at(move[0], counts[coming].astype(int) - 1, steps[coming])
        mean, cov = move @ mean, move @ cov @ move.T
        mean[0] += (steps * centers)[coming].sum()
        cov[0, 0] += noise**2 * (steps[coming] ** 2).sum()
        seen.append((float(mean[0]), float(cov[0, 0])))
    settled, scatter = np.mean(seen[len(seen) // 2 :], axis=0)
    return float(settled), float(scatter)


def late(run: Run, metric: str) -> float:
    """Its mean at the server over the second half of the run."""
    _, seen = of_node(run, 0, metric)
    return float(np.mean(seen[len(seen) // 2 :]))


def near_after_s(run: Run) -> float:
    """When the server's mean was first within 0.3 of the optimum."""
    seen = zip(*of_node(run, 0, "point"), strict=True)
    return next((time_s for time_s, x in seen if abs(x) < 0.3), math.inf)


def measure(runs: Runs) -> list[Row]:
    """Bias, variance and waiting, beside what they should be."""
    rows: list[Row] = []
    for label, run in runs.items():
        point, scatter = expected(run)
        rows.append(
            {
                "window, weights": label,
                "clients wait, %": 100 * waiting(run),
                "x settles at": late(run, "point"),
                "predicted": round(point, 9) + 0.0,
                "variance": late(run, "variance"),
                "its prediction": scatter,
                "s until |x| < 0.3": near_after_s(run),
            }
        )
    return rows


def verdict(rows: Sequence[Row]) -> list[Check]:
    """No bias where corrected, the predicted one where not; waiting against variance."""
    corrected = [row for row in rows if str(row["window, weights"]) in LABELS]

    def along(column: str) -> list[float]:
        return [float(row[column]) for row in corrected]

    wait, spread, near = along("clients wait, %"), along("variance"), along("s until |x| < 0.3")
    plain = [float(row["x settles at"]) for row in rows if PLAIN in str(row["window, weights"])]
    off = max(abs(float(row["x settles at"]) - float(row["predicted"])) for row in rows)
    missed = max(abs(float(row["variance"]) / float(row["its prediction"]) - 1) for row in rows)
    return [
        Check(
            "corrected weights: within 0.05 of the optimum, whatever the window",
            max(map(abs, along("x settles at"))) < 0.05,
        ),
        Check(f"{PLAIN} alone: more than 0.2 away from it", min(plain) > 0.2),
        Check(f"all where predicted, within 0.02 (at most {off:.3f} away)", off < 0.02),
        Check(
            "the longer the window, the more clients wait, the longer it takes, and the less x "
            "scatters",
            wait == sorted(wait) and near == sorted(near) and spread == sorted(spread)[::-1],
        ),
        Check(f"variance as predicted, within {100 * missed:.0f} %, below 15 %", missed < 0.15),
        Check(
            "a window as long as the slowest client takes: FedAvg's variance within 10 %",
            abs(spread[-1] / float(rows[-1]["variance"]) - 1) < 0.1,
        ),
    ]


def figure(runs: Runs) -> list[Panel]:
    """The curve, and the way to it."""
    shown = {label: run for label, run in runs.items() if label in LABELS}
    wait = [100 * waiting(run) for run in shown.values()]
    spread = {"variance of x": [late(run, "variance") for run in shown.values()]}
    axis, title = "% of the time that clients wait", "variance over waiting"
    return [
        points(wait, spread, axis, title),
        curves(runs, "point", "seconds", title="x over seconds", scale="linear"),
    ]


LABELS = tuple(f"{ms} ms" for ms in WINDOWS_MS)

REPRODUCTION = Reproduction(
    title="FedFix trades waiting for variance, without bias",
    claim=(
        "A server that aggregates at fixed times, weighing client k by p_k ceil(tau_k / window), "
        "optimises the average objective at any window; with p_k alone it does not. Short windows "
        "keep everybody busy, and are fast but scatter more, for the slow come rarely and with "
        "large weights; long ones end at FedAvg, which waits for the slowest."
    ),
    source="Fraboni, Vidal, Kameni & Lorenzi, JMLR 2023, section 5 (FedFix, their F-80 clients)",
    variants=(
        *(
            Variant(label, (f"protocol.window={ms}ms",))
            for label, ms in zip(LABELS, WINDOWS_MS, strict=True)
        ),
        *(
            Variant(f"{ms} ms, {PLAIN}", (f"protocol.window={ms}ms", "protocol.unbiased=false"))
            for ms in (100, 200)
        ),
        Variant(FED_AVG, ("protocol={kind: fed_avg, lr: 0.2, local_steps: 1}",)),
    ),
    measure=measure,
    verdict=verdict,
    figure=figure,
    remarks=(
        "Ten clients with one number each, 0.1 to 0.5 s per step, noise of variance 1 in each of "
        "200 coordinates; x starts at 3, the optimum is 0. What corrected weights leave of the "
        "bias is of the order of the step: the slow send rarely and much, so x goes to and fro."
    ),
)
