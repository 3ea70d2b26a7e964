"""Gaussian noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from tidings.api import Attack, View, attacks


@attacks.register("gaussian")
@dataclass(frozen=True)
class Gaussian(Attack):
    """Normal noise in place of the message (Blanchard et al., NeurIPS 2017, Section 5).

    ::

        sent ~ N(mean, std^2 I)

    Every attacker draws its own, and another for each receiver. The paper takes a std of 200.
    """

    mean: float = 0.0
    std: float = 200.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.mean):
            raise ValueError(f"mean must be finite, got {self.mean}")
        if not (math.isfinite(self.std) and self.std > 0):
            raise ValueError(f"std must be above zero, got {self.std}")

    def corrupt(self, honest: torch.Tensor, view: View, rng: np.random.Generator) -> torch.Tensor:
        """A fresh draw."""
        noise = rng.standard_normal(len(honest))
        return torch.from_numpy(self.mean + self.std * noise).float()
