"""Error feedback on heterogeneous data: who stalls, and who does not."""

from __future__ import annotations

from collections.abc import Sequence

from tidings_coordinator.reproducing import (
    Check,
    Panel,
    Reproduction,
    Row,
    Runs,
    Variant,
    best,
    cell,
    final,
    over,
)

EXACT = ("EF21", "EControl, η = δ", "D-EC")


def measure(runs: Runs) -> list[Row]:
    """The suboptimality at the end, and the least on the way."""
    return [
        {
            "method": label,
            "f(x) - f* at the end": final(run, "suboptimality"),
            "least on the way": best(run, "suboptimality"),
            "bytes": run.points[-1].bytes["total"],
        }
        for label, run in runs.items()
    ]


def verdict(rows: Sequence[Row]) -> list[Check]:
    """Ten orders of magnitude lie between a floor and none."""
    large, small = (cell(rows, f"EC, lr {lr}", "least on the way") for lr in ("0.04", "0.01"))
    end = {name: cell(rows, name, "f(x) - f* at the end") for name in EXACT}
    return [
        Check("EC stalls above 10^-2, and lower with a smaller step", large > small > 1e-2),
        *(Check(f"{name} comes below 10^-9", value < 1e-9) for name, value in end.items()),
    ]


def figure(runs: Runs) -> list[Panel]:
    """Over rounds and over bytes."""
    return over(runs, "suboptimality", "f(x) - f*", "rounds", "bytes")


REPRODUCTION = Reproduction(
    title="On heterogeneous data EC stalls where EF21, EControl and D-EC are exact",
    claim=(
        "With full gradients and a constant step, classic error feedback stops at a distance from "
        "the optimum that grows with the step and with the difference between the workers' data. "
        "EF21, EControl and D-EC converge to the optimum linearly, with the same compressor."
    ),
    source=(
        "Richtarik, Sokolov & Fatkhullin, NeurIPS 2021; Gao, Islamov & Stich, ICLR 2024 (their "
        "synthetic least squares with a heterogeneity parameter)"
    ),
    variants=(
        Variant("EC, lr 0.04"),
        Variant("EC, lr 0.01", ("protocol.lr=0.01",)),
        Variant("EF21", ("protocol.kind=ef21",)),
        Variant("EControl, η = δ", ("protocol.kind=econtrol", "protocol.eta=0.1")),
        Variant("D-EC", ("protocol.kind=d_ec",)),
    ),
    measure=measure,
    verdict=verdict,
    figure=figure,
    remarks=(
        "Top-10% of 20 coordinates, 8 workers, each with a ground truth and a curvature of its "
        "own. Models are float32, which ends what can be seen at about 10^-11."
    ),
)
