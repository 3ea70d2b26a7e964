"""Links that carry nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tidings.faults.base import Fault, Heal, Site, faults


@faults.register("link.cut")
@dataclass(frozen=True)
class LinkCut(Fault):
    """The links carry nothing: a black hole (``drop``), or sends are refused (``reject``).

    What waits and has not begun to leave is lost too where the cut comes at a point in time. Where
    it comes with a round, messages of earlier rounds get through, so that runs stay reproducible.
    """

    mode: Literal["drop", "reject"] = "drop"

    scope = "link"
    picks = "links"

    def begin(self, site: Site, targets: Sequence[int]) -> Heal:
        """Cut them."""
        return site.cut(targets, self.mode == "reject")
