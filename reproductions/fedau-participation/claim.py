"""FedAU learns who is rarely there, and lets them count as much as the others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tidings_coordinator.reproducing import (
    Check,
    Panel,
    Reproduction,
    Row,
    Runs,
    Variant,
    over,
    value,
)

CUTOFFS = (10, 50, 1000)
FED_AU = {cutoff: f"FedAU, K = {cutoff}" for cutoff in CUTOFFS}
PRESENT, ALL = "mean over those present", "sum over those present / N"
ACCURACY, SWING = "accuracy, %", "its swing, points"


def measure(runs: Runs) -> list[Row]:
    """Mean and standard deviation of accuracy over the last third of the evaluations."""
    rows: list[Row] = []
    for label, run in runs.items():
        seen = [100 * value(point, "accuracy") for point in run.points]
        late = seen[-len(seen) // 3 :]
        rows.append(
            {
                "weights": label,
                ACCURACY: float(np.mean(late)),
                SWING: float(np.std(late)),
                "worst": min(late),
                "bytes": run.points[-1].bytes["total"],
            }
        )
    return rows


def verdict(rows: Sequence[Row]) -> list[Check]:
    """Better than both ways that know nothing, for the same bytes."""
    accuracy = {str(row["weights"]): float(row[ACCURACY]) for row in rows}
    swing = {str(row["weights"]): float(row[SWING]) for row in rows}
    best, plain = accuracy[FED_AU[50]], accuracy[PRESENT]
    sent = [float(row["bytes"]) for row in rows]
    return [
        Check(
            f"FedAU, K = 50, is {best - plain:.1f} points above the mean over those present, "
            "at least 3",
            best > plain + 3,
        ),
        Check(
            f"and {best - accuracy[ALL]:.1f} above the sum over N, at least 3",
            best > accuracy[ALL] + 3,
        ),
        Check(
            f"K = 10 is within 2 points of K = 50: {accuracy[FED_AU[10]] - best:+.1f}",
            abs(accuracy[FED_AU[10]] - best) < 2,
        ),
        Check(
            "without a cutoff (K = 1000) accuracy swings more than with K = 50",
            swing[FED_AU[1000]] > swing[FED_AU[50]],
        ),
        Check("all send the same bytes, within 0.1 %", max(sent) < 1.001 * min(sent)),
    ]


def figure(runs: Runs) -> list[Panel]:
    """Accuracy over rounds."""
    return over(runs, "accuracy", "accuracy", "rounds")


REPRODUCTION = Reproduction(
    title="FedAU keeps its accuracy where participation depends on the data",
    claim=(
        "Where clients with some labels take part more often than those with others, plain "
        "averaging learns the labels of the frequent. FedAU weighs each client by the mean length "
        "of the intervals between its parts, which needs a few numbers per client and no knowledge "
        "of their probabilities, and is more accurate at equal cost. Intervals are cut off after K "
        "rounds; about 50 are good, none is noisier."
    ),
    source="Wang & Ji, ICLR 2024, Algorithms 1 and 2, section 6",
    variants=(
        *(Variant(label, (f"protocol.cutoff={cutoff}",)) for cutoff, label in FED_AU.items()),
        Variant(PRESENT, ("protocol.weighting=participating",)),
        Variant(ALL, ("protocol.weighting=all", "protocol.server_lr=5.0")),
    ),
    measure=measure,
    verdict=verdict,
    figure=figure,
    remarks=(
        "Digits, 20 clients, 300 rounds; the paper has CIFAR-10 and more, 250 clients and 10,000 "
        "rounds, and tunes all steps. The sum over N takes 5 times the step, for a fifth of the "
        "clients are there on average. Mean, swing (standard deviation) and worst are over the "
        "evaluations of the last third: one seed."
    ),
)
