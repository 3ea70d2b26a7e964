"""Min-Max."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from tidings.api import Attack, View, attacks
from tidings.attacks.envelope import Direction, perturbation, squared_distances
from tidings.attacks.knowledge import Others


@attacks.register("min_max")
@dataclass(frozen=True)
class MinMax(Attack):
    """Min-Max (Shejwalkar & Houmansadr, NDSS 2021): as far out as two honest vectors are apart.

    The mean is moved along p as far as the lie's largest distance to an honest vector stays below
    the largest between two honest ones::

        sent = mean + gamma p,    p = -std, -mean / |mean| or -sign(mean)
        gamma = max { gamma : max_i |mean + gamma p - x_i| <= max_{i, j} |x_i - x_j| }

    The paper searches for gamma; here it is exact, the smallest positive root of one quadratic for
    each honest vector. (Implementations exist that compare squared with plain distances.)
    """

    direction: Direction = "std"
    #: "neighbors", or "omniscient": on a star clients hear no other client
    knowledge: Others = "neighbors"

    def corrupt(self, honest: torch.Tensor, view: View, rng: np.random.Generator) -> torch.Tensor:
        """The mean of the honest vectors in view, moved by gamma p."""
        rows = view.honest.double()
        mean, p = rows.mean(dim=0), perturbation(rows, self.direction)
        square = float(p @ p)
        if square == 0:
            return mean.float()
        away = mean - rows
        slope = away @ p
        room = squared_distances(rows).max() - away.square().sum(dim=1)
        gamma = (-slope + (slope.square() + square * room.clamp(min=0)).sqrt()) / square
        return (mean + gamma.min() * p).float()
