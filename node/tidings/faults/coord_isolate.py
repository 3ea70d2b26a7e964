"""A coordinator that nobody hears."""

from __future__ import annotations

from dataclasses import dataclass

from tidings.faults.base import OutsideFault, faults


@faults.register("coord.isolate")
@dataclass(frozen=True)
class CoordIsolate(OutsideFault):
    """The coordinator hears no node and no node hears it, for a time; the nodes go on.

    It breaks its lines to all nodes and shuts its port. What falls due meanwhile is done when it is
    back; what nodes had to say they say then.
    """

    scope = "run"
    picks = "nothing"
