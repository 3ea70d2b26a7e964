"""Nodes that come and go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tidings.faults.base import OutsideFault, faults
from tidings.units import Duration, Ratio


@faults.register("node.churn")
@dataclass(frozen=True)
class NodeChurn(OutsideFault):
    """Nodes crash at random moments and come back: of those that are hit, a share ``per_minute`` on
    average, each down for ``downtime`` (``fixed``, or its mean where ``exponential``).

    It is drawn beforehand from the run's seed: a series of ``node.crash`` with ``restart_after``.
    """

    per_minute: Ratio
    downtime: Duration = Duration(5)
    distribution: Literal["fixed", "exponential"] = "fixed"
    lose_state: bool = False

    needs = "restart"
    lasting = False

    def __post_init__(self) -> None:
        """Something happens."""
        if self.per_minute <= 0 or self.downtime <= 0:
            raise ValueError("per_minute and downtime must be above zero")
