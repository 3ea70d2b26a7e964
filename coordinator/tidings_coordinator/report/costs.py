"""What learning is held against: bytes, seconds and rounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from tidings_coordinator.records.series import Point
from tidings_coordinator.report import wording

Cost = Literal["bytes", "seconds", "rounds"]
COSTS: tuple[Cost, ...] = ("bytes", "seconds", "rounds")
#: each cost's name in result.json
KEYS: dict[Cost, str] = {"bytes": "bytes", "seconds": "time_s", "rounds": "rounds"}

_SIZES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B"))
_TIMES = ((3600.0, "h"), (120.0, "min"), (1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))


def along(points: Sequence[Point], cost: Cost) -> list[float]:
    """What each point had cost by then."""
    if cost == "bytes":
        return [point.bytes["total"] for point in points]
    return [point.time_s if cost == "seconds" else point.round for point in points]


def text(cost: Cost, value: float) -> str:
    """'12.3 MB', '7.54 s' or '60'."""
    if cost == "bytes":
        return wording.size(value)
    return wording.seconds(value) if cost == "seconds" else wording.count(value)


def spread(cost: Cost, values: Sequence[float]) -> str:
    """Mean and standard deviation of a sample in one unit: '12.3 ± 0.4 MB'."""
    if cost == "rounds":
        return mean_and_deviation(values)
    mean = float(np.mean(values))
    units = _SIZES if cost == "bytes" else _TIMES
    least, unit = next((u for u in units if mean >= u[0]), units[-1])
    factor = 60.0 if unit == "min" else least
    return f"{mean_and_deviation([value / factor for value in values])} {unit}"


def mean_and_deviation(values: Sequence[float]) -> str:
    """'0.332 ± 0.011'; without the deviation for a single value."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return wording.number(mean)
    deviation = float(np.std(values, ddof=1))
    if deviation <= 1e-9 * abs(mean):
        return f"{wording.number(mean)} ± 0"
    if not 1e-4 <= deviation < 1e4:
        return f"{wording.number(mean)} ± {wording.number(deviation, 2)}"
    # two digits of the deviation say how many of the mean's are worth giving
    decimals = max(0, 1 - math.floor(math.log10(deviation)))
    return wording.signed(f"{mean:.{decimals}f} ± {deviation:.{decimals}f}")


def rounds_label(synchronous: bool) -> str:
    """What a round is called."""
    return "rounds" if synchronous else "local steps, mean over nodes"
