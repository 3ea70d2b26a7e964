"""FedAsync settles where the speeds of its clients put it, not at the optimum."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tidings_coordinator.records.reading import Run
from tidings_coordinator.reproducing import (
    Check,
    Panel,
    Reproduction,
    Row,
    Runs,
    Variant,
    cell,
    curves,
    of_node,
)

HALF_AS_FAST = "compute.slow=[" + ", ".join(
    f"{{on: {k}, factor: {factor}}}"
    for k, factor in enumerate((2.0, 1.89, 1.78, 1.67, 1.56, 1.43, 1.33, 1.22, 1.11), start=1)
) + "]"  # fmt: skip
UNBIASED = "F-80, corrected"


def times(run: Run) -> NDArray[np.float64]:
    """What clients take for an update, by the experiment file, in units of the fastest's."""
    factors = np.ones(len(run.at("problem", "centers")))
    for slow in run.at("compute", "slow"):
        factors[np.array(slow["on"]) - 1] *= slow["factor"]
    return factors


def settles_at(run: Run) -> float:
    """The mean of the b_k weighted by q_k ~ a_k / ((1 - a_k) tau_k).

    An update of k comes every tau_k, and meanwhile tau_k sum_j 1/tau_j - 1 others are mixed in,
    which is its staleness u_k; a_k = alpha s(u_k).
    """
    centers, tau = np.array(run.at("problem", "centers")), times(run)
    if run.at("protocol", "kind") == "fed_avg":
        return float(centers.mean())
    per_update = tau * (1 / tau).sum()
    a = np.full(len(tau), float(run.at("protocol", "alpha")))
    if run.at("protocol", "staleness") == "polynomial":
        a *= per_update ** -float(run.at("protocol", "exponent"))
    if run.at("protocol", "unbiased"):
        a *= per_update / len(tau)
    return float(np.average(centers, weights=a / (1 - a) / tau))


def measure(runs: Runs) -> list[Row]:
    """Where the server is in the second half of the run, and where it should be."""
    rows: list[Row] = []
    for label, run in runs.items():
        _, seen = of_node(run, 0, "point")
        settled = float(np.mean(seen[len(seen) // 2 :]))
        predicted = round(settles_at(run), 9) + 0.0
        rows.append({"clients, method": label, "predicted": predicted, "measured": settled})
    return rows


def verdict(rows: Sequence[Row]) -> list[Check]:
    """A bias, and as large as predicted."""
    far = cell(rows, "F-80", "measured")
    off = max(abs(float(row["measured"]) - float(row["predicted"])) for row in rows)
    return [
        Check(
            f"F-80: {far:.3f} from the optimum; less than 0.02 where all are equally fast",
            far > 0.2 and abs(cell(rows, "equally fast", "measured")) < 0.02,
        ),
        Check(f"all settle where predicted, within 0.03 (at most {off:.3f} away)", off < 0.03),
        Check(
            "weights corrected for the measured frequencies take at least 8/10 of the bias away",
            abs(cell(rows, UNBIASED, "measured")) < far / 5,
        ),
    ]


def figure(runs: Runs) -> list[Panel]:
    """The server's and the clients' models over time."""
    return [curves(runs, "point", "seconds", title="x over seconds", scale="linear")]


REPRODUCTION = Reproduction(
    title="FedAsync lands on a biased point, by the predicted amount",
    claim=(
        "An asynchronous server that mixes in every update as it comes does not minimise the "
        "average of the clients' objectives, but sum q_k f_k: with equal weights q_k ~ 1/tau_k for "
        "clients that take tau_k, so the fast decide. Weights that are corrected for how often a "
        "client comes remove the bias."
    ),
    source=(
        "Fraboni, Vidal, Kameni & Lorenzi, JMLR 2023, Table 1 (and for FedAsync's weights by "
        "staleness our own q_k ~ a_k / ((1 - a_k) tau_k)); Xie, Koyejo & Gupta, 2019"
    ),
    variants=(
        Variant("equally fast", ("compute.slow=[]",)),
        Variant("F-50", (HALF_AS_FAST,)),
        Variant("F-80"),
        Variant(
            "F-80, weights by staleness", ("protocol.staleness=polynomial", "protocol.alpha=0.6")
        ),
        Variant(UNBIASED, ("protocol.unbiased=true", "protocol.alpha=0.05")),
        Variant("F-80, FedAvg", ("protocol={kind: fed_avg, lr: 0.02, local_steps: 5}",)),
    ),
    measure=measure,
    verdict=verdict,
    figure=figure,
    remarks=(
        "Ten clients with one number each, without noise, so that all that is seen is bias; "
        "the optimum is 0. F-80: the fastest needs 80 % less time than the slowest. What is "
        "predicted is exact for small steps; here local steps go 10 % of the client's way. "
        "Clients that are equally fast are in turn, by their numbers."
    ),
)
