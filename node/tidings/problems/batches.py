"""Which of its samples a node's next gradient is computed on."""

from __future__ import annotations

from typing import Literal

import numpy as np

#: "epochs": reshuffled passes over the local samples; "independent": every batch on its own
Sampling = Literal["epochs", "independent"]


class Batches:
    """Batches of positions ``0 .. samples-1``, without replacement inside a batch.

    ``epochs`` (the usual practice, as PyTorch's DataLoader): a new permutation each epoch, cut into
    ceil(samples / size) batches, the last of which may be smaller. The place in the epoch is state
    (``rest``). ``independent``: each batch is a fresh uniform subset,
    a function of the generator alone, so that two calls with equal generators get the same batch,
    as variance-reduced methods need; each is an unbiased estimate.
    """

    def __init__(self, samples: int, size: int | None, sampling: Sampling) -> None:
        self.samples = samples
        self.size = samples if size is None else min(size, samples)
        self.sampling = sampling
        self._all = np.arange(samples)
        #: what is left of the epoch
        self.rest = self._all[:0]

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """The positions of the next batch: (b,) int64, b <= size. All of them for a full batch."""
        if self.size == self.samples:
            return self._all
        if self.sampling == "independent":
            return rng.choice(self.samples, self.size, replace=False)
        if len(self.rest) == 0:
            self.rest = rng.permutation(self.samples)
        batch, self.rest = self.rest[: self.size], self.rest[self.size :]
        return batch


def check_batch_size(batch_size: int | None) -> None:
    """ValueError unless ``batch_size`` is a positive number or None (full batch)."""
    if batch_size is not None and batch_size < 1:
        raise ValueError(
            f"batch_size must be at least 1, or null for all samples; got {batch_size}"
        )
