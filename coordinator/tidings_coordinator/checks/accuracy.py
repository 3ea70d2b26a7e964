"""The accuracy at a moment."""

from __future__ import annotations

from dataclasses import dataclass

from tidings_coordinator.checks.base import Judged, checks
from tidings_coordinator.checks.bounds import Bounded
from tidings_coordinator.records.reading import Run


@checks.register("accuracy")
@dataclass(frozen=True, kw_only=True)
class Accuracy(Bounded):
    """The accuracy of the honest nodes at a moment: ``{check: accuracy, at: end, ">=": 85%}``.

    Evidence: series.jsonl. Unknown where the run did not get that far or has no accuracy.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        for bound in self.bounds.values():
            if not 0 <= bound <= 1:
                raise ValueError(f"an accuracy lies between 0% and 100%, got {bound:g}")

    def judge(self, run: Run) -> Judged:
        """Whether it is within the bounds."""
        return self.judge_metric(run, "accuracy")
