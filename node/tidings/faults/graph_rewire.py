"""Another graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tidings.faults.base import Fault, Heal, Site, faults


@faults.register("graph.rewire")
@dataclass(frozen=True)
class GraphRewire(Fault):
    """Nodes go over to another ``topology`` with its own mixing weights, and back when it ends.

    ``topology`` is written as the experiment's own: ``complete``, ``{kind: custom, edges: [...]}``.
    Its links are opened before the run, and carry nothing until then. Fired at a round, all nodes
    change with that round; at a time, each in its next round, and some may wait for a message that
    nobody sends any more. Of several that hold, the one that began last counts.
    """

    topology: str | dict[str, Any]

    picks = "nothing"

    def begin(self, site: Site, targets: Sequence[int]) -> Heal:
        """Take the place in it that the plan says."""
        return site.rewire()
