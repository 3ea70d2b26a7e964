"""Nodes that die."""

from __future__ import annotations

from dataclasses import dataclass

from tidings.faults.base import OutsideFault, faults
from tidings.units import Duration


@faults.register("node.crash")
@dataclass(frozen=True)
class NodeCrash(OutsideFault):
    """The node is killed (SIGKILL); with ``restart_after`` it is started again after that time.

    It then starts over from the initial model (``lose_state``) or goes on from its last checkpoint.
    """

    restart_after: Duration | None = None
    lose_state: bool = False

    needs = "kill"
    lasting = False

    def __post_init__(self) -> None:
        """A time that can pass."""
        if self.restart_after is not None and self.restart_after <= 0:
            raise ValueError("restart_after must be above zero")
