"""Top-k sparsification."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from tidings.api import Compressor, Packed, compressors
from tidings.compressors.bitpacking import (
    as_array,
    expected_index_bits,
    max_index_bytes,
    pack_floats,
    pack_indices,
    unpack_floats,
    unpack_indices,
)
from tidings.compressors.selection import kept, largest, require_ratio
from tidings.units import Ratio


@compressors.register("top_k")
@dataclass(frozen=True)
class TopK(Compressor):
    """The k coordinates of largest magnitude (Stich et al., NeurIPS 2018).

    k = max(1, ceil(ratio d)); of equal magnitudes the lower index is kept::

        C(v)_i = v_i  if i is one of the k,  else 0

    Biased, contractive with delta = k / d (attained when all magnitudes are equal). NaN counts as
    the largest magnitude and infinity as the next, so a vector that is not finite arrives as one.

    On the wire: k floats of values; metadata the set of indices, as Golomb-Rice coded gaps or as a
    bitmap, whichever is shorter (for k <= d / 2 within 0.25 bit an index of log2 C(d, k) / k).
    """

    ratio: Ratio = Ratio(0.05)

    def __post_init__(self) -> None:
        require_ratio(self.ratio)

    def pack(self, vector: torch.Tensor, rng: np.random.Generator) -> Packed:
        """The k values in order of their indices, and the indices."""
        values = as_array(vector)
        # Without its sign bit a float's pattern, read as an integer, sorts by magnitude, NaN last.
        magnitudes = values.view(np.uint32) & np.uint32(0x7FFFFFFF)
        indices = largest(magnitudes, kept(self.ratio, len(values)))
        return Packed(pack_floats(values[indices]), pack_indices(indices, len(values)))

    def unpack(self, packed: Packed, dim: int) -> torch.Tensor:
        """The sparse vector, dense; a WireError unless there are k values at k distinct places."""
        count = kept(self.ratio, dim)
        values = unpack_floats(packed.values, count)
        dense = np.zeros(dim, np.float32)
        dense[unpack_indices(packed.metadata, count, dim)] = values
        return torch.from_numpy(dense)

    def max_bytes(self, dim: int) -> int:
        """4 k and the longest set of indices, which is no longer than a bitmap."""
        count = kept(self.ratio, dim)
        return 4 * count + max_index_bytes(count, dim)

    def expected_bits(self, dim: int) -> float:
        """32 k and the mean length of a random set's code."""
        count = kept(self.ratio, dim)
        return 32.0 * count + expected_index_bits(count, dim)

    def delta(self, dim: int) -> float:
        """k / d."""
        return kept(self.ratio, dim) / dim
