"""The simulator as a launcher."""

from __future__ import annotations

from dataclasses import dataclass

from tidings_coordinator.launchers.base import Launcher, launchers


@launchers.register("simulator")
@dataclass(frozen=True)
class Simulator(Launcher):
    """All nodes in one process on virtual time: same protocols, codec and links, no network."""

    #: draws the order of simultaneous events from this seed; null: first come, first served
    tie_seed: int | None = None

    virtual = True
    # its links are the model of both
    enforces = ("user", "kernel")
