"""What Min-Max and Min-Sum share: as far as one can go without standing out."""

from __future__ import annotations

from typing import Literal

import torch

#: minus the standard deviation, minus the unit mean, minus the signs of the mean
Direction = Literal["std", "unit", "sign"]


def perturbation(honest: torch.Tensor, direction: Direction) -> torch.Tensor:
    """The direction p in which the mean of (h, d) float64 rows is moved: (d,)."""
    mean = honest.mean(dim=0)
    if direction == "std":
        return -honest.std(dim=0, correction=0)
    if direction == "sign":
        return -mean.sign()
    return -torch.nn.functional.normalize(mean, dim=0)


def squared_distances(honest: torch.Tensor) -> torch.Tensor:
    """|x_i - x_j|^2 of (h, d) float64 rows: (h, h)."""
    centred = honest - honest[0]
    products = centred @ centred.T
    norms = products.diagonal()
    return (norms[:, None] + norms[None, :] - 2 * products).clamp_(min=0)
