"""Nodes that go in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tidings.faults.base import Fault, Heal, Site, faults


@faults.register("node.leave")
@dataclass(frozen=True)
class NodeLeave(Fault):
    """The node takes its leave: it stands still and sends nothing, and its neighbours are told.
    When the fault ends the node is back, and goes on with the model that it had."""

    def begin(self, site: Site, targets: Sequence[int]) -> Heal:
        """Stop taking part."""
        return site.leave()
