"""Clients that come and stay for a while."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tidings.api import Participation, participations
from tidings.units import Ratio


@participations.register("markov")
@dataclass(frozen=True, kw_only=True)
class Markov(Participation):
    """A two-state Markov chain with stationary share p_n (Wang & Ji, ICLR 2024, section 6).

    From absent to present with probability ``min(arrival, p / (1 - p))``, back with ``(1 - p) / p``
    times that, so that a client with a small ``arrival`` comes seldom and stays long. It starts in
    the stationary law.
    """

    arrival: Ratio = Ratio(0.05)

    def rounds(self, share: float, rng: np.random.Generator) -> Iterator[bool]:
        """The chain."""
        come = min(float(self.arrival), share / (1 - share)) if share < 1 else 1.0
        leave = come * (1 - share) / share
        here = bool(rng.random() < share)
        while True:
            yield here
            here = bool(rng.random() >= leave) if here else bool(rng.random() < come)
