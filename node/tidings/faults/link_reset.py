"""Connections that break."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tidings.faults.base import Fault, Heal, Site, faults


@faults.register("link.reset")
@dataclass(frozen=True)
class LinkReset(Fault):
    """The connections of these links break once, in the middle of whatever they carry, and come
    back by themselves; what comes due meanwhile is undeliverable. Over gRPC only."""

    scope = "link"
    picks = "links"
    lasting = False

    def begin(self, site: Site, targets: Sequence[int]) -> Heal:
        """Break them."""
        return site.reset(targets)
