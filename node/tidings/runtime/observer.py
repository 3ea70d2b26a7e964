"""Who watches a simulated run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tidings.runtime.node import RuntimeNode
from tidings.runtime.plan import ArmedFault
from tidings.v1 import records_pb2 as records

if TYPE_CHECKING:
    from tidings.runtime.simulation import Controls


class Observer:
    """Takes down what happens in a simulated run, and may end it.

    ``evaluation`` and ``progress`` return the reason to stop, or None to go on.
    """

    #: virtual seconds between calls of ``progress``
    interval_s: float = 0.5

    def evaluation(self, row: records.Evaluation) -> str | None:
        """A node was evaluated."""
        return None

    def progress(self, time_s: float, nodes: Sequence[RuntimeNode]) -> str | None:
        """Some virtual time has passed."""
        return None

    def event(self, event: records.Event) -> None:
        """A node logged something."""

    def begun(self, controls: Controls) -> None:
        """The nodes begin; what is to befall them is brought about by ``controls``."""

    def fault(self, change: records.FaultChange) -> None:
        """A fault has come to a node, or gone."""

    def arrived(self, node: int, armed: ArmedFault, round_: int) -> None:
        """A node is where something from outside is to hit it, and stands still."""
