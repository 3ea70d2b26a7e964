"""Nodes that stand still."""

from __future__ import annotations

from dataclasses import dataclass

from tidings.faults.base import OutsideFault, faults


@faults.register("node.pause")
@dataclass(frozen=True)
class NodePause(OutsideFault):
    """The node stands still (SIGSTOP) and goes on (SIGCONT); its connections stay."""

    needs = "pause"
