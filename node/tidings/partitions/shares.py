"""What several partitions need: class labels, a check of the node count, a floor under shares."""

from __future__ import annotations

import numpy as np

from tidings.api import Dataset


def class_labels(data: Dataset, kind: str) -> np.ndarray:
    """The (N,) class labels of ``data``; ValueError that says why where there are none."""
    if data.targets.ndim != 1:
        raise ValueError(
            f"'{kind}' deals samples out by class, but these targets are sequences of tokens; "
            "use by_group or quantity_skew"
        )
    if not np.issubdtype(data.targets.dtype, np.integer):
        raise ValueError(
            f"'{kind}' deals samples out by class, but these targets are real numbers (regression);"
            " use quantity_skew or feature_shift"
        )
    return data.targets


def check_enough(data: Dataset, nodes: int, least: int, kind: str) -> None:
    """ValueError unless every one of ``nodes`` can get ``least`` samples."""
    if nodes * least > len(data):
        raise ValueError(
            f"'{kind}' with at least {least} samples for each of {nodes} nodes needs "
            f"{nodes * least} samples, there are {len(data)}"
        )


def even_shares(data: Dataset, nodes: int, rng: np.random.Generator, kind: str) -> list[np.ndarray]:
    """Random sorted shares of equal size, up to one; ValueError for more nodes than samples."""
    check_enough(data, nodes, 1, kind)
    return [np.sort(share) for share in np.array_split(rng.permutation(len(data)), nodes)]


def check_skew(alpha: float, min_samples: int) -> None:
    """ValueError for a Dirichlet parameter that is not positive, or empty shares."""
    if not (alpha > 0 and np.isfinite(alpha)):
        raise ValueError(f"alpha must be positive, got {alpha}")
    if min_samples < 1:
        raise ValueError(f"min_samples must be at least 1, got {min_samples}")


def cut(indices: np.ndarray, proportions: np.ndarray) -> list[np.ndarray]:
    """``indices`` in pieces whose sizes are as ``proportions`` (which sum to 1), rounded."""
    ends = np.rint(np.cumsum(proportions) * len(indices)).astype(np.int64)
    return np.split(indices, np.minimum(ends[:-1], len(indices)))


def fill_up(shares: list[np.ndarray], least: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Move random samples from whoever has most until everyone has ``least``; sorted shares."""
    filled = [rng.permutation(share).tolist() for share in shares]
    sizes = np.array([len(share) for share in filled])
    for poor in np.flatnonzero(sizes < least):
        while sizes[poor] < least:
            rich = int(sizes.argmax())
            filled[poor].append(filled[rich].pop())
            sizes[poor] += 1
            sizes[rich] -= 1
    return [np.sort(np.array(share, np.int64)) for share in filled]
