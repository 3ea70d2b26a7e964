"""Distances between rows, from one pass over them: the base of all distance-based rules.

With the Gram matrix G of the rows, every distance between rows and weighted means of rows is a few
operations on m numbers, so a rule can iterate as often as it likes without touching the d columns.
"""

from __future__ import annotations

import torch

from tidings.aggregators.columns import blocks


def centred_gram(rows: torch.Tensor) -> torch.Tensor:
    """G_ij = <x_i - c, x_j - c> of (m, d) rows, (m, m) float64, accumulated in float64.

    Models lie close together and far from the origin, so they are centred first, or the offset
    would eat the digits of the distances. The centre c is the row of the smallest norm: it is no
    farther out than any honest row, whereas one huge row would carry a mean away with it.
    """
    # row by row, for over a dimension torch takes ten times as long
    norms = [float(torch.linalg.vector_norm(row, dtype=torch.float64)) for row in rows]
    centre = rows[norms.index(min(norms))]
    gram = torch.zeros(len(rows), len(rows), dtype=torch.float64)
    for block in blocks(rows):
        part = rows[:, block].double().sub_(centre[block])
        gram.addmm_(part, part.T)
    return gram


def squared_distances(gram: torch.Tensor) -> torch.Tensor:
    """|x_i - x_j|^2, (m, m) float64, exactly zero on the diagonal."""
    norms = gram.diagonal()
    squared = (norms[:, None] + norms[None, :] - 2 * gram).clamp_(min=0)
    return squared.fill_diagonal_(0)


def distances_to(gram: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """|x_i - z| for z = sum_j w_j x_j with (m,) float64 weights that sum to one: (m,) float64."""
    products = gram @ weights
    squared = gram.diagonal() - 2 * products + weights @ products
    return squared.clamp_(min=0).sqrt_()
