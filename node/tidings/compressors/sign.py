"""Scaled sign: one bit a coordinate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from tidings.api import Compressor, Packed, compressors
from tidings.compressors.bitpacking import (
    FLOAT32_MAX,
    as_array,
    fixed_bytes,
    pack_scale,
    pack_uints,
    unpack_scale,
    unpack_uints,
)


@compressors.register("sign")
@dataclass(frozen=True)
class Sign(Compressor):
    """Sign scaled by the mean magnitude (Karimireddy et al., ICML 2019, Algorithm 1).

    ::

        C(v) = (|v|_1 / d) sgn(v),    sgn(0) = +1

    Biased. |C(v) - v|^2 = (1 - |v|_1^2 / (d |v|_2^2)) |v|^2 exactly, so it is contractive with
    delta = 1 / d in the worst case (one coordinate is not zero) and 2 / pi for Gaussian vectors.

    On the wire: d bits of values, 1 for minus; metadata the scale, a float32.

    ``pack`` raises ValueError for a vector that is not finite (a run that has diverged): it has no
    representation.
    """

    def pack(self, vector: torch.Tensor, rng: np.random.Generator) -> Packed:
        """One bit a coordinate, and the mean magnitude."""
        values = as_array(vector)
        scale = float(np.abs(values).mean(dtype=np.float64))
        if not scale <= FLOAT32_MAX:
            raise ValueError("sign cannot represent a vector with NaN or infinity; diverged?")
        return Packed(pack_uints(values < 0, 1), pack_scale(scale))

    def unpack(self, packed: Packed, dim: int) -> torch.Tensor:
        """The vector of plus and minus scale; a WireError for a wrong length or scale."""
        scale = np.float32(unpack_scale(packed.metadata))
        negative = unpack_uints(packed.values, dim, 1).astype(bool)
        return torch.from_numpy(np.where(negative, -scale, scale))

    def max_bytes(self, dim: int) -> int:
        """One bit a coordinate and the scale, always."""
        return fixed_bytes(dim, 1) + 4

    def expected_bits(self, dim: int) -> float:
        """One bit a coordinate and the scale."""
        return 8.0 * self.max_bytes(dim)

    def delta(self, dim: int) -> float:
        """1 / d, the worst case."""
        return 1 / dim
