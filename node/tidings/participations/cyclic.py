"""Clients that come at the same time of every cycle."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tidings.api import Participation, participations


@participations.register("cyclic")
@dataclass(frozen=True, kw_only=True)
class Cyclic(Participation):
    """Present for round(p_n cycle) rounds in a row of every ``cycle`` (Wang & Ji, ICLR 2024).

    Each client's part of the cycle begins at a random round; it has at least one.
    """

    cycle: int = 100

    def __post_init__(self) -> None:
        """A cycle that has a round."""
        super().__post_init__()
        if self.cycle < 1:
            raise ValueError(f"cycle must be at least 1, got {self.cycle}")

    def rounds(self, share: float, rng: np.random.Generator) -> Iterator[bool]:
        """The cycle, again and again."""
        present = max(1, round(share * self.cycle))
        phase = int(rng.integers(self.cycle))
        for number in itertools.count(phase):
            yield number % self.cycle < present
