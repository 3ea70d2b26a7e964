"""Scaling."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from tidings.api import Attack, View, attacks


@attacks.register("scale")
@dataclass(frozen=True)
class Scale(Attack):
    """The own honest message, magnified (model replacement; Bagdasaryan et al., AISTATS 2020).

    ::

        sent = factor * honest

    Against an average of m rows a factor of m makes the attacker's row the result; 0 is ``zero``.
    """

    factor: float = 10.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.factor) and self.factor > 0):
            raise ValueError(f"factor must be above zero, got {self.factor}")

    def corrupt(self, honest: torch.Tensor, view: View, rng: np.random.Generator) -> torch.Tensor:
        """factor * honest."""
        return self.factor * honest
