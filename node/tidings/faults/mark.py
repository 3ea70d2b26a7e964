"""Notes in the schedule."""

from __future__ import annotations

from dataclasses import dataclass

from tidings.faults.base import OutsideFault, faults


@faults.register("mark")
@dataclass(frozen=True)
class Mark(OutsideFault):
    """Breaks nothing: a line in the records and on the figures."""

    text: str = ""

    scope = "run"
    picks = "nothing"
    lasting = False
