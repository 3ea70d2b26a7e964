"""CO2: a round takes the longer of computing and averaging, Local SGD's takes both."""

from __future__ import annotations

from collections.abc import Sequence

from tidings_coordinator.reproducing import (
    Check,
    Panel,
    Reproduction,
    Row,
    Runs,
    Variant,
    over,
    points,
)

NODES, GRADIENT_S, DELAY_S, RATE_BIT_PER_S = 4, 0.05, 0.05, 50e6
#: messages of a round over all nodes, in both phases of the all-reduce
MESSAGES = 2 * NODES * (NODES - 1)
STEPS = (1, 2, 3, 4)
LOCAL_SGD = ("protocol.overlap=false", "protocol.penalty=1")


def label(method: str, steps: int) -> str:
    return f"{method}, {steps} local steps"


def averaging_s(runs: Runs) -> float:
    """An all-reduce: two phases of a part of the model on links of their own."""
    rounds = runs[label("Local SGD", 1)].points[-1].round
    payload = runs[label("Local SGD", 1)].points[-1].bytes["payload"] / (rounds * MESSAGES)
    return 2 * (8 * payload / RATE_BIT_PER_S + DELAY_S)


def measure(runs: Runs) -> list[Row]:
    """Seconds per round, without the first five, and what they should be."""
    averaging = averaging_s(runs)
    rows: list[Row] = []
    for method in ("CO2", "Local SGD"):
        for steps in STEPS:
            first, last = (runs[label(method, steps)].points[place] for place in (1, -1))
            computing = steps * GRADIENT_S
            both = max if method == "CO2" else lambda a, b: a + b
            rows.append(
                {
                    "run": label(method, steps),
                    "local steps in s": computing,
                    "all-reduce in s": averaging,
                    "expected s per round": both(computing, averaging),
                    "s per round": (last.time_s - first.time_s) / (last.round - first.round),
                }
            )
    return rows


def verdict(rows: Sequence[Row]) -> list[Check]:
    """Within a tenth."""
    checks = []
    for method, rule in (("CO2", "the longer of the two"), ("Local SGD", "their sum")):
        of_method = [row for row in rows if str(row["run"]).startswith(method)]
        off = [float(row["s per round"]) / float(row["expected s per round"]) for row in of_method]
        worst = max(abs(ratio - 1) for ratio in off)
        checks.append(Check(f"{method}: a round takes {rule}, within 10 %", worst < 0.1))
    return checks


def figure(runs: Runs) -> list[Panel]:
    """Seconds per round over local steps; accuracy over seconds."""
    rows = measure(runs)
    by_method = {
        method: [float(row["s per round"]) for row in rows if str(row["run"]).startswith(method)]
        for method in ("CO2", "Local SGD")
    }
    most = {label(m, STEPS[-1]): runs[label(m, STEPS[-1])] for m in by_method}
    shape = points(STEPS, by_method, "local steps", "seconds per round", log=False)
    return [shape, *over(most, "accuracy", "accuracy", "seconds")]


REPRODUCTION = Reproduction(
    title="CO2 hides the all-reduce behind local steps",
    claim=(
        "The models of a round are averaged while the local steps of the next one are made. With "
        "enough of them the network costs no time: a round takes the longer of local steps and "
        "all-reduce, where Local SGD's takes their sum."
    ),
    source="Sun et al., ICLR 2024, Figure 1 and the throughput tables of Section 4",
    variants=tuple(
        Variant(label(method, steps), (*settings, f"protocol.local_steps={steps}"))
        for method, settings in (("CO2", ()), ("Local SGD", LOCAL_SGD))
        for steps in STEPS
    ),
    measure=measure,
    verdict=verdict,
    figure=figure,
    launcher="local",
    remarks=(
        "Local SGD is CO2 that waits, over the same all-reduce. The two rules meet nowhere; CO2's "
        "bends where local steps take as long as the all-reduce, between two and three. Made over "
        "gRPC; `--launcher simulator` makes the same runs without what processes add."
    ),
)
