"""Node processes on this machine."""

from __future__ import annotations

from dataclasses import dataclass

from tidings_coordinator.launchers.base import Launcher, launchers


@launchers.register("local")
@dataclass(frozen=True)
class Local(Launcher):
    """One process a node on this machine, talking gRPC over the loopback interface."""

    #: where nodes and coordinator listen
    host: str = "127.0.0.1"
    #: the coordinator's port; 0 for any free one
    port: int = 0
