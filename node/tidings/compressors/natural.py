"""Natural compression: stochastic rounding to powers of two."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from tidings.api import Compressor, Packed, compressors
from tidings.compressors.bitpacking import (
    as_array,
    fixed_bytes,
    pack_uints,
    require_length,
    unpack_uints,
)

#: sign and exponent of a float32
WIDTH = 9
_MANTISSA_BITS = 23


@compressors.register("natural")
@dataclass(frozen=True)
class Natural(Compressor):
    """Natural compression (Horvath et al., MSML 2022, Definition 2).

    Every coordinate goes to one of the two powers of two around it, so that it is right on
    average; with 2^a <= |v_i| < 2^(a+1) and u_i uniform on [0, 1)::

        C(v)_i = sgn(v_i) 2^(a + 1)   if u_i < |v_i| / 2^a - 1,   else sgn(v_i) 2^a

    Unbiased with omega = 1/8 (attained at |v_i| = 4/3 2^a), contractive with delta = 7/8. 0 is
    0; what is too small for a normal float32 counts from 0 to the least normal one, where delta
    and omega do not hold. Infinity and NaN arrive as infinity.

    On the wire: sign and exponent of the float32, 9 bits a coordinate.
    """

    def pack(self, vector: torch.Tensor, rng: np.random.Generator) -> Packed:
        """The upper nine bits of every float, after rounding."""
        bits = as_array(vector).view(np.uint32).astype(np.uint64)
        # adding a uniform mantissa carries into the exponent with probability mantissa / 2^23
        noise = rng.integers(0, 1 << _MANTISSA_BITS, len(bits), dtype=np.uint64)
        finite = (bits >> _MANTISSA_BITS) & 0xFF != 0xFF
        rounded = np.where(finite, bits + noise, bits) >> _MANTISSA_BITS
        return Packed(pack_uints(rounded, WIDTH))

    def unpack(self, packed: Packed, dim: int) -> torch.Tensor:
        """The powers of two; a WireError for any other length."""
        require_length(packed.metadata, 0, "metadata")
        codes = unpack_uints(packed.values, dim, WIDTH).astype(np.uint32) << _MANTISSA_BITS
        return torch.from_numpy(codes.view(np.float32).copy())

    def max_bytes(self, dim: int) -> int:
        """9 d bits."""
        return fixed_bytes(dim, WIDTH)

    def expected_bits(self, dim: int) -> float:
        """9 d, to the byte."""
        return 8.0 * self.max_bytes(dim)

    def delta(self, dim: int) -> float:
        """1 - omega."""
        return 7 / 8

    def omega(self, dim: int) -> float:
        """1/8."""
        return 1 / 8
