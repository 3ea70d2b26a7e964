"""Sign flipping."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from tidings.api import Attack, View, attacks


@attacks.register("sign_flip")
@dataclass(frozen=True)
class SignFlip(Attack):
    """The own honest message with its sign turned (Li et al., AAAI 2019).

    ::

        sent = -scale * honest

    Three attacks go by this name. This is the one that needs no knowledge of others; the omniscient
    one, minus the mean of the honest, is ``ipm`` with epsilon 1, and the one that climbs its local
    loss is no attack on messages.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise ValueError(f"scale must be above zero, got {self.scale}")

    def corrupt(self, honest: torch.Tensor, view: View, rng: np.random.Generator) -> torch.Tensor:
        """-scale * honest; nothing of the view is used."""
        return -self.scale * honest
