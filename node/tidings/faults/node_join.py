"""Nodes that come later."""

from __future__ import annotations

from dataclasses import dataclass

from tidings.faults.base import faults
from tidings.faults.node_leave import NodeLeave


@faults.register("node.join")
@dataclass(frozen=True)
class NodeJoin(NodeLeave):
    """The node takes no part until ``at``, a time: it sends nothing, and its neighbours are told.
    Then it begins with the initial model. It is ``active`` while it is missing, ``recovered`` once
    it has joined."""
