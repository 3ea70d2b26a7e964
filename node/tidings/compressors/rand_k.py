"""Rand-k sparsification with a mask that both ends draw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from tidings.api import Compressor, Packed, compressors
from tidings.compressors.bitpacking import as_array, pack_floats, require_length, unpack_floats
from tidings.compressors.selection import kept, largest, require_ratio
from tidings.units import Ratio

SEED_BYTES = 4


@compressors.register("rand_k")
@dataclass(frozen=True)
class RandK(Compressor):
    """k coordinates drawn uniformly without replacement (Stich et al., NeurIPS 2018).

    k = max(1, ceil(ratio d)); with a uniformly random set S of k indices::

        C(v)_i = v_i        if i in S, else 0     (contractive, delta = k / d with equality in mean)
        C(v)_i = v_i d / k  if i in S, else 0     (``scaled``: unbiased, omega = d / k - 1)

    NaN and infinity travel when they are drawn.

    On the wire: k floats of values; metadata a seed of 4 bytes, from which the receiver draws S
    again. The seed keys a Philox generator of which only raw 64-bit words are used, the part that
    NumPy promises never to change, so ends with different NumPy versions draw the same set.
    """

    ratio: Ratio = Ratio(0.05)
    scaled: bool = False

    def __post_init__(self) -> None:
        require_ratio(self.ratio)

    def pack(self, vector: torch.Tensor, rng: np.random.Generator) -> Packed:
        """The drawn values in order of their indices, and the seed of the draw."""
        values = as_array(vector)
        seed = rng.bytes(SEED_BYTES)
        return Packed(pack_floats(values[self._mask(seed, len(values))]), seed)

    def unpack(self, packed: Packed, dim: int) -> torch.Tensor:
        """The sparse vector, dense; a WireError for values or a seed of another length."""
        require_length(packed.metadata, SEED_BYTES, "seed")
        count = kept(self.ratio, dim)
        values = torch.from_numpy(unpack_floats(packed.values, count))
        dense = torch.zeros(dim)
        dense[torch.from_numpy(self._mask(packed.metadata, dim))] = values
        return dense.mul_(dim / count) if self.scaled else dense

    def _mask(self, seed: bytes, dim: int) -> np.ndarray:
        words = np.random.Philox(key=int.from_bytes(seed, "little")).random_raw(dim)
        return largest(np.asarray(words), kept(self.ratio, dim))

    def max_bytes(self, dim: int) -> int:
        """4 k and the seed, always."""
        return 4 * kept(self.ratio, dim) + SEED_BYTES

    def expected_bits(self, dim: int) -> float:
        """32 k and the seed."""
        return 8.0 * self.max_bytes(dim)

    def delta(self, dim: int) -> float | None:
        """k / d; scaled: 1 - omega, where more than half of the coordinates are kept."""
        omega = self.omega(dim)
        if omega is None:
            return kept(self.ratio, dim) / dim
        return 1 - omega if omega < 1 else None

    def omega(self, dim: int) -> float | None:
        """d / k - 1 where scaled."""
        return dim / kept(self.ratio, dim) - 1 if self.scaled else None
