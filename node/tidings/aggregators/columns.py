"""Going over a matrix by blocks of columns, so that what is computed on stays in the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

CHUNK = 4096


def blocks(rows: torch.Tensor) -> Iterator[slice]:
    """Slices that together cover the columns of (m, d) rows."""
    for start in range(0, rows.shape[1], CHUNK):
        yield slice(start, start + CHUNK)


def combine_sorted(rows: torch.Tensor, combine: Callable[[np.ndarray], np.ndarray]) -> torch.Tensor:
    """``combine`` applied to the sorted values of every coordinate: (d,) of the dtype of ``rows``.

    ``combine`` gets (c, m) arrays, increasing along the second axis, and returns (c,).
    """
    out = torch.empty(rows.shape[1], dtype=rows.dtype)
    for block in blocks(rows):
        # numpy sorts contiguous lines with vector instructions, about ten times as fast as torch
        columns = np.ascontiguousarray(rows[:, block].numpy().T)
        columns.sort(axis=1)
        out[block] = torch.from_numpy(combine(columns))
    return out


def weighted(weights: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """``weights @ rows`` for (m,) or (k, m) float64 weights: (d,) or (k, d), dtype of ``rows``.

    Summed in float64: rows as large as float32 allows do not overflow, a far-away row of weight
    zero costs the others no digits, and the mean of equal rows is that row.
    """
    out = torch.empty((*weights.shape[:-1], rows.shape[1]), dtype=rows.dtype)
    for block in blocks(rows):
        out[..., block] = (weights @ rows[:, block].double()).to(rows.dtype)
    return out
