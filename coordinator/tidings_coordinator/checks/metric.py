"""A metric at a moment."""

from __future__ import annotations

from dataclasses import dataclass

from tidings_coordinator.checks.base import Judged, checks
from tidings_coordinator.checks.bounds import Bounded
from tidings_coordinator.records.reading import Run


@checks.register("metric")
@dataclass(frozen=True, kw_only=True)
class Metric(Bounded):
    """Any metric of the series at a moment: ``{check: metric, name: suboptimality, "<=": 1e-6}``.

    Evidence: series.jsonl. Unknown where the run did not get that far or has no such metric.
    """

    #: as it stands in the series: accuracy, loss, suboptimality, what a protocol reports
    name: str

    def judge(self, run: Run) -> Judged:
        """Whether it is within the bounds."""
        return self.judge_metric(run, self.name)
