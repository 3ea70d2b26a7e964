"""Nodes without a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tidings.faults.base import Fault, Heal, Site, faults


@faults.register("node.isolate")
@dataclass(frozen=True)
class NodeIsolate(Fault):
    """All links of the node are cut: what it sends (``out``), what is sent to it (``in``), both."""

    direction: Literal["in", "out", "both"] = "both"

    scope = "link"

    def begin(self, site: Site, targets: Sequence[int]) -> Heal:
        """Cut them."""
        return site.cut(targets, False)
