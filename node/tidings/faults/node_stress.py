"""Neighbours that take the machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tidings.faults.base import Fault, Heal, Site, faults
from tidings.units import Size


@faults.register("node.stress")
@dataclass(frozen=True)
class NodeStress(Fault):
    """Processes beside the node use ``workers`` processors and hold ``memory``: real load, which in
    virtual time does not exist."""

    workers: int = 1
    memory: Size = Size(0)

    def __post_init__(self) -> None:
        """Something to do."""
        if self.workers < 0 or (self.workers == 0 and not self.memory):
            raise ValueError("give workers, or memory")

    def begin(self, site: Site, targets: Sequence[int]) -> Heal:
        """Start them."""
        return site.stress(self.workers, int(self.memory))
