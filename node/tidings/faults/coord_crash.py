"""Coordinators that die."""

from __future__ import annotations

from dataclasses import dataclass

from tidings.faults.base import OutsideFault, faults
from tidings.units import Duration


@faults.register("coord.crash")
@dataclass(frozen=True)
class CoordCrash(OutsideFault):
    """The coordinator is killed (SIGKILL); after ``restart_after`` another one takes over.

    The nodes go on by themselves and find the new one, which knows of the run what is written down.
    """

    restart_after: Duration

    scope = "run"
    picks = "nothing"
    needs = "outlive"
    lasting = False

    def __post_init__(self) -> None:
        """A time that can pass."""
        if self.restart_after <= 0:
            raise ValueError("restart_after must be above zero")
