"""Rounds drawn independently."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tidings.api import Participation, participations


@participations.register("bernoulli")
@dataclass(frozen=True, kw_only=True)
class Bernoulli(Participation):
    """Each round anew, client n takes part with probability p_n (Wang & Ji, ICLR 2024)."""

    def rounds(self, share: float, rng: np.random.Generator) -> Iterator[bool]:
        """Independent draws."""
        while True:
            yield bool(rng.random() < share)
