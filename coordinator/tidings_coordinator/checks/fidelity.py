"""The network that was achieved."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tidings.units import Duration, Ratio
from tidings_coordinator.checks.base import Check, Judged, checks, unknown
from tidings_coordinator.records.reading import Run
from tidings_coordinator.report import wording


@checks.register("fidelity")
@dataclass(frozen=True, kw_only=True)
class Fidelity(Check):
    """How far rates and delays may be off: ``{check: fidelity, rate_error: 2%, delay_error: 1ms}``.

    Beside `network.tolerance`, which decides whether a run is valid at all, for runs that need
    more. Evidence: fidelity.json, the worst of all probed links. Unknown where nothing was probed;
    in the simulator links are exact.
    """

    #: of a link's rate, either way
    rate_error: Ratio | None = None
    #: of the one-way delay, either way
    delay_error: Duration | None = None
    #: how late chunks may be during the run: the worst link's 99th percentile
    lag: Duration | None = None

    def __post_init__(self) -> None:
        if not self._asked:
            raise ValueError("give at least one of rate_error, delay_error, lag")

    @property
    def _asked(self) -> dict[str, float]:
        given = {
            "rate_error": self.rate_error,
            "delay_error_s": self.delay_error,
            "lag_p99_s": self.lag,
        }
        return {name: float(bound) for name, bound in given.items() if bound is not None}

    def judge(self, run: Run) -> Judged:
        """Whether the worst is within the bounds."""
        asked, found = self._asked, run.fidelity
        if found is None:
            return unknown("the network was not measured", asked)
        measured = {name: found.get(name) for name in asked}
        parts, wrong, missing = [], [], []
        for name, bound in asked.items():
            value, about = measured[name], name.removesuffix("_s").replace("_", " ")
            show = wording.error if name == "rate_error" else wording.seconds
            if value is None or not math.isfinite(value):
                missing.append(about)
            elif abs(value) > bound:
                wrong.append(f"{about} {show(value)}, asked for at most {show(bound)}")
            else:
                parts.append(f"{about} {show(value)}")
        if wrong:
            return Judged("fail", measured, asked, "; ".join(wrong))
        if missing:
            return unknown(f"not measured: {', '.join(missing)}", asked, measured)
        return Judged("pass", measured, asked, f"at worst {', '.join(parts)}")
