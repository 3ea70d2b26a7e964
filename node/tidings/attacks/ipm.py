"""Inner-product manipulation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from tidings.api import Attack, View, attacks
from tidings.attacks.knowledge import Others


@attacks.register("ipm")
@dataclass(frozen=True)
class IPM(Attack):
    """Inner-product manipulation (Xie et al., UAI 2019, "Fall of Empires").

    A multiple of the honest mean that points backwards::

        sent = -epsilon * (1/h) sum_{honest i} x_i

    A small epsilon (0.1, 0.5) hides near the origin among short honest vectors and makes the inner
    product of a robust aggregate with the true mean negative or small; against a plain mean
    epsilon > h / f is needed to turn it round. Published defaults run from 0.1 to 100, all of the
    same formula.
    """

    epsilon: float = 0.5
    #: "neighbors", or "omniscient": on a star clients hear no other client
    knowledge: Others = "neighbors"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.epsilon) and self.epsilon > 0):
            raise ValueError(f"epsilon must be above zero, got {self.epsilon}")

    def corrupt(self, honest: torch.Tensor, view: View, rng: np.random.Generator) -> torch.Tensor:
        """-epsilon times the mean of the honest vectors in view."""
        return -self.epsilon * view.honest.mean(dim=0)
