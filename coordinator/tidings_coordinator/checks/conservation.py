"""Whether a sum over nodes stays what it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tidings.units import Ratio
from tidings_coordinator.checks.base import Check, Judged, checks, unknown
from tidings_coordinator.records.reading import Run
from tidings_coordinator.records.series import Row, groups, sketch_of

Array = NDArray[np.float64]
_MODELS = "models"


@checks.register("conservation")
@dataclass(frozen=True, kw_only=True)
class Conservation(Check):
    """A sum over all nodes, attackers included, stays what it was: ``{check: conservation}``.

    Of the models, which pure gossip conserves (learning does not), or of a metric that nodes
    report, such as push-sum's weights: ``{check: conservation, of: weight, equals: 8}``. The sum of
    the models is compared through their sketches, which are linear: the sketch of a sum is the sum
    of the sketches. Evidence: series.jsonl. Protocols that go in rounds are held to it at every
    evaluation, others at the end, when nothing is on its way any more. Unknown where a node has no
    row.
    """

    #: models, or the name of a metric
    of: str = _MODELS
    #: what the sum of a metric has to be; by default what it was at the beginning
    equals: float | None = None
    #: how far off it may be: of the sum of the nodes' norms at the beginning
    tolerance: Ratio = Ratio(1e-4)
    #: every evaluation, or only the end
    at: Literal["every", "end"] = "every"

    def __post_init__(self) -> None:
        if self.equals is not None and self.of == _MODELS:
            raise ValueError("'equals' is for the sum of a metric; the models have no one number")

    def judge(self, run: Run) -> Judged:
        """Whether the sum has stayed."""
        asked = {"of": self.of, "tolerance": float(self.tolerance), "equals": self.equals}
        points = groups(run.path)
        first = points[0] if points else []
        if self.of != _MODELS and not any(self.of in row["metrics"] for row in first):
            # what nodes report they report after a round, and the first evaluation is before one
            points = points[1:]
        if len(points) < 2:
            return unknown("there are no two evaluations of all nodes", asked)
        there = sum(not row.get("gone") for row in points[-1])
        if there < run.node_count:
            return unknown(f"{run.node_count - there} nodes have no evaluation", asked)
        aligned = run.synchronous and not run.graph.get("evaluated_by_time")
        later = points[1:] if self.at == "every" and aligned else points[-1:]
        values = [self._values(rows) for rows in (points[0], *later)]
        known = [array for array in values if array is not None]
        if len(known) < len(values):
            return unknown(f"not every node has reported {self.of}", asked)
        scale = float(np.linalg.norm(known[0], axis=1).sum()) or 1.0
        due = known[0].sum(axis=0) if self.equals is None else np.array([self.equals])
        checked = known if self.equals is not None else known[1:]
        offs = [float(np.linalg.norm(array.sum(axis=0) - due)) / scale for array in checked]
        worst = int(np.argmax([off if np.isfinite(off) else np.inf for off in offs]))
        rows = (
            points[0] if len(checked) > len(later) and worst == 0 else later[worst - len(checked)]
        )
        where = {"round": max(r["round"] for r in rows), "time_s": max(r["time_s"] for r in rows)}
        measured: dict[str, Any] = {"off": offs[worst], "evaluations": len(checked)} | where
        good = offs[worst] <= self.tolerance
        text = (
            f"the sum of {self.of} was off by {offs[worst]:.2g} of its scale at most, at round "
            f"{where['round']}; tolerance {float(self.tolerance):.2g}"
        )
        return Judged("pass" if good else "fail", measured, asked, text)

    def _values(self, rows: Sequence[Row]) -> Array | None:
        """One row a node; None where one of them has not reported."""
        if self.of == _MODELS:
            return np.stack([sketch_of(row).astype(np.float64) for row in rows])
        given = [row["metrics"].get(self.of) for row in rows]
        return None if None in given else np.array([given], dtype=np.float64).T
