"""Min-Sum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from tidings.api import Attack, View, attacks
from tidings.attacks.envelope import Direction, perturbation, squared_distances
from tidings.attacks.knowledge import Others


@attacks.register("min_sum")
@dataclass(frozen=True)
class MinSum(Attack):
    """Min-Sum (Shejwalkar & Houmansadr, NDSS 2021): no farther from all than some honest vector.

    As ``min_max``, with the sum of the squared distances in place of the largest distance::

        sent = mean + gamma p,    p = -std, -mean / |mean| or -sign(mean)
        gamma = max { gamma : sum_i |mean + gamma p - x_i|^2 <= max_i sum_j |x_i - x_j|^2 }

    Exact: the sum is ``sum_i |mean - x_i|^2 + h gamma^2 |p|^2``.
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
        room = squared_distances(rows).sum(dim=1).max() - (rows - mean).square().sum()
        return (mean + (room.clamp(min=0) / (len(rows) * square)).sqrt() * p).float()
