"""DADAO: edge rates by the convex program need fewer gossips than equal ones."""

from __future__ import annotations

from collections.abc import Sequence

from tidings_coordinator.reproducing import (
    Check,
    Panel,
    Reproduction,
    Row,
    Runs,
    Variant,
    cell,
    costs_to,
    final,
    over,
)

TARGET = 1e-4
#: bytes: 20 floats
VECTOR = 4 * 20
GOSSIPS, TIME, MEGABYTES = "gossips per unit", f"units to {TARGET:g}", f"MB to {TARGET:g}"


def measure(runs: Runs) -> list[Row]:
    """Gossips are counted by the vectors that were sent, two each."""
    return [
        {
            "rates": label,
            GOSSIPS: run.points[-1].bytes["payload"] / (2 * VECTOR) / run.points[-1].time_s,
            TIME: costs_to(run, "suboptimality", TARGET, "seconds"),
            MEGABYTES: costs_to(run, "suboptimality", TARGET, "bytes") / 1e6,
            "f(x) - f* at the end": final(run, "suboptimality"),
        }
        for label, run in runs.items()
    ]


def verdict(rows: Sequence[Row]) -> list[Check]:
    """Less to send, as fast."""

    def ratio(column: str) -> float:
        return cell(rows, "equal", column) / cell(rows, "by the program", column)

    return [
        Check(f"{ratio(GOSSIPS):.2f} times fewer gossips per unit of time", ratio(GOSSIPS) > 1.5),
        Check(f"{ratio(MEGABYTES):.2f} times fewer bytes to 10^-4", ratio(MEGABYTES) > 1.5),
        Check("in the same time, within 15 %", abs(ratio(TIME) - 1) < 0.15),
    ]


def figure(runs: Runs) -> list[Panel]:
    """The same over time, not over bytes."""
    return over(runs, "suboptimality", "f(x) - f*", "seconds", "bytes")


REPRODUCTION = Reproduction(
    title="DADAO's edge rates by a convex program save gossips",
    claim=(
        "Convergence asks of the rates only that χ₁ χ₂ is at most 1/2. Those with the least sum "
        "are found by a semidefinite program; on graphs with bottlenecks they need far fewer "
        "gossips than equal ones for the same convergence."
    ),
    source="Nabli & Oyallon, ICML 2023 (rates by an SDP; not in the public code)",
    variants=(
        Variant("equal", ("protocol.rates=uniform",)),
        Variant("by the program"),
    ),
    measure=measure,
    verdict=verdict,
    figure=figure,
    remarks=(
        "Needs the extra 'sdp'. On two cliques of eight the program says 32.9 gossips per unit "
        "of time and equal rates need 126.1; with 9 times the rate on the bridge, found by hand, "
        "it is 38.5."
    ),
)
