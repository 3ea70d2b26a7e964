"""The loss at a moment."""

from __future__ import annotations

from dataclasses import dataclass

from tidings_coordinator.checks.base import Judged, checks
from tidings_coordinator.checks.bounds import Bounded
from tidings_coordinator.records.reading import Run


@checks.register("loss")
@dataclass(frozen=True, kw_only=True)
class Loss(Bounded):
    """The loss of the honest nodes at a moment: ``{check: loss, at: {round: 50}, "<=": 0.5}``.

    Evidence: series.jsonl. Unknown where the run did not get that far or has no loss.
    """

    def judge(self, run: Run) -> Judged:
        """Whether it is within the bounds."""
        return self.judge_metric(run, "loss")
