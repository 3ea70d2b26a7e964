"""Storage that fails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tidings.faults.base import Fault, Heal, Site, faults


@faults.register("store.fail")
@dataclass(frozen=True)
class StoreFail(Fault):
    """Writing checkpoints fails, with the system's error of that name."""

    error: Literal["ENOSPC", "EIO", "EROFS"] = "ENOSPC"

    def begin(self, site: Site, targets: Sequence[int]) -> Heal:
        """Let it fail."""
        return site.fail_store(self.error)
