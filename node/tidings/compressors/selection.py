"""How many coordinates a sparsifier keeps, and which."""

from __future__ import annotations

import math

import numpy as np


def require_ratio(ratio: float) -> None:
    """ValueError unless ``ratio`` lies in (0, 1]."""
    if not 0 < ratio <= 1:
        raise ValueError(f"ratio must be above 0% and at most 100%, got {ratio}")


def kept(ratio: float, dim: int) -> int:
    """k = max(1, ceil(ratio * dim)).

    The product is rounded first, for 7% of 100 is 7.000000000000001 in floating point, and 7 here.
    """
    return max(1, math.ceil(round(ratio * dim, 6)))


def largest(keys: np.ndarray, count: int) -> np.ndarray:
    """The increasing indices of the ``count`` largest of (d,) unsigned keys.

    Among equal keys the lower index wins, so the set depends on nothing but the keys.
    """
    threshold = np.partition(keys, len(keys) - count)[len(keys) - count]
    chosen = keys > threshold
    ties = np.flatnonzero(keys == threshold)
    chosen[ties[: count - int(chosen.sum())]] = True
    return np.flatnonzero(chosen)
