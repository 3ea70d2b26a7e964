"""No compression: the reference that every compressor is compared with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from tidings.api import Compressor, Packed, compressors
from tidings.compressors.bitpacking import as_array, pack_floats, require_length, unpack_floats


@compressors.register("identity")
@dataclass(frozen=True)
class Identity(Compressor):
    """The vector itself, as float32.

    Contractive with delta = 1, unbiased with omega = 0. NaN and infinity travel as they are.

    On the wire: 4 d bytes of values.
    """

    def pack(self, vector: torch.Tensor, rng: np.random.Generator) -> Packed:
        """The d floats."""
        return Packed(pack_floats(as_array(vector)))

    def unpack(self, packed: Packed, dim: int) -> torch.Tensor:
        """The d floats; a WireError for any other length."""
        require_length(packed.metadata, 0, "metadata")
        return torch.from_numpy(unpack_floats(packed.values, dim))

    def max_bytes(self, dim: int) -> int:
        """4 d."""
        return 4 * dim

    def expected_bits(self, dim: int) -> float:
        """32 d."""
        return 32.0 * dim

    def delta(self, dim: int) -> float:
        """1: there is no error."""
        return 1.0

    def omega(self, dim: int) -> float:
        """0: there is no error."""
        return 0.0
