"""Stragglers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tidings.faults.base import Fault, Heal, Site, faults


@faults.register("node.slow")
@dataclass(frozen=True)
class NodeSlow(Fault):
    """The node's computing takes ``factor`` times as long; factors of several faults multiply."""

    factor: float

    def __post_init__(self) -> None:
        """Slower, not faster."""
        if self.factor < 1:
            raise ValueError(f"factor must be at least 1, got {self.factor:g}")

    def begin(self, site: Site, targets: Sequence[int]) -> Heal:
        """Slow it down."""
        return site.slow(self.factor)
