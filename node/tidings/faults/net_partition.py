"""A network in parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tidings.faults.base import Fault, Heal, Site, faults

Shape = Literal["halves", "one", "minority_third", "bridge", "majorities_ring"]


@faults.register("net.partition")
@dataclass(frozen=True)
class NetPartition(Fault):
    """Every link between different parts of the network is cut.

    The parts are ``groups`` (lists of nodes; whoever is in none is in one more), or a ``shape``
    drawn from the run's seed: ``halves``; ``one`` node alone; ``minority_third``; ``bridge``: two
    halves with one node that both still reach; ``majorities_ring``: every node keeps the majority
    that is nearest in a random ring, and no two keep the same. ``oneway``: only what leaves the
    first part is cut, not what enters it.
    """

    shape: Shape | None = None
    groups: tuple[tuple[int | str, ...], ...] = ()
    oneway: bool = False

    scope = "link"
    picks = "nothing"

    def __post_init__(self) -> None:
        """One way of saying it."""
        if (self.shape is None) == (not self.groups):
            raise ValueError("give exactly one of shape, groups")
        if self.oneway and self.shape in ("bridge", "majorities_ring"):
            raise ValueError(f"'{self.shape}' has no first part, so it cannot be one way")

    def begin(self, site: Site, targets: Sequence[int]) -> Heal:
        """Cut them."""
        return site.cut(targets, False)
