"""Silence that looks like speech."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from tidings.api import Attack, View, attacks


@attacks.register("zero")
@dataclass(frozen=True)
class Zero(Attack):
    """The zero vector (Xie et al., 2018, as the mildest of bit-failures).

    ::

        sent = 0

    Free-riding where updates are sent; where models are, a pull to the origin.
    """

    def corrupt(self, honest: torch.Tensor, view: View, rng: np.random.Generator) -> torch.Tensor:
        """Zeros."""
        return torch.zeros_like(honest)
