"""A Little Is Enough."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import torch

from tidings.api import Attack, View, attacks
from tidings.attacks.knowledge import Others


@attacks.register("alie")
@dataclass(frozen=True)
class ALIE(Attack):
    """A Little Is Enough (Baruch et al., NeurIPS 2019).

    In every coordinate z standard deviations below the mean of the honest::

        sent = mean - z std,    z = Phi^-1((n - f - s) / (n - f)),    s = floor(n / 2) + 1 - f

    with n = ``View.nodes`` and f = ``View.attackers``: s honest nodes must lie farther out than the
    attackers for these to look like the majority, and z is as far as that allows.

    Implementations differ. Here: z by the formula above (some take (n - s) / n), std over the h
    honest rows divided by h, and minus, the last two as in the authors' code; plus is the mirror
    image and as strong for the symmetric rules. A fixed ``z`` replaces the formula.

    In small neighbourhoods the quantile leaves (0, 1). It is then held to what h samples can show,
    [1 / (h + 1), h / (h + 1)], which changes nothing inside (0, 1). Where s is more than half of
    the honest, z is below zero and the mirror image results; where it is half of them (n = 3,
    f = 1) z is zero and the mean itself is sent: there is no room to hide in.
    """

    z: float | None = None
    #: "neighbors", or "omniscient": on a star clients hear no other client
    knowledge: Others = "neighbors"

    def __post_init__(self) -> None:
        if self.z is not None and not math.isfinite(self.z):
            raise ValueError(f"z must be finite, got {self.z}")

    def corrupt(self, honest: torch.Tensor, view: View, rng: np.random.Generator) -> torch.Tensor:
        """The mean of the honest vectors in view, moved by z of their standard deviations."""
        z = z_max(view.nodes, view.attackers) if self.z is None else self.z
        std, mean = torch.std_mean(view.honest, dim=0, correction=0)
        return mean - z * std


def z_max(nodes: int, attackers: int) -> float:
    """The z of the paper for ``attackers`` among ``nodes``, held to what is possible."""
    honest = max(1, nodes - attackers)
    supporters = nodes // 2 + 1 - attackers
    quantile = (nodes - attackers - supporters) / honest
    return NormalDist().inv_cdf(min(max(quantile, 1 / (honest + 1)), honest / (honest + 1)))
