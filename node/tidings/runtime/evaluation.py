"""Measuring the model: loss and accuracy, and a sketch from which consensus distance is computed.

A count sketch (Charikar, Chen & Farach-Colton 2002) with the run's seed maps models to
``SKETCH_WIDTH`` numbers such that |S x - S y|^2 is an unbiased estimate of |x - y|^2 with relative
standard deviation sqrt(2 / SKETCH_WIDTH) = 12 %. Averaged over nodes it is closer than that, and it
costs 512 bytes in the records, whatever the size of the model.
"""

from __future__ import annotations

import functools

import numpy as np
import torch

from tidings.runtime.plan import derive_rng

SKETCH_WIDTH = 128


@functools.lru_cache(maxsize=4)
def _hashes(seed: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    rng = derive_rng(seed, "sketch", dim)
    buckets = rng.integers(0, SKETCH_WIDTH, size=dim)
    signs = rng.integers(0, 2, size=dim) * 2.0 - 1.0
    return buckets, signs


def sketch(x: torch.Tensor, seed: int) -> np.ndarray:
    """The (SKETCH_WIDTH,) float32 sketch of ``x`` ((d,) float32)."""
    buckets, signs = _hashes(seed, x.numel())
    weights = signs * x.detach().numpy().astype(np.float64)
    return np.bincount(buckets, weights, SKETCH_WIDTH).astype(np.float32)


def consensus_distance(sketches: np.ndarray) -> float:
    """Estimate of ``(1/n) sum_i |x_i - mean x|^2`` from the sketches ((n, SKETCH_WIDTH))."""
    rows = sketches.astype(np.float64)
    return float(((rows - rows.mean(axis=0)) ** 2).sum(axis=1).mean())
