"""QSGD: stochastic rounding to a few levels of the norm."""

from __future__ import annotations

import math
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
from tidings.errors import MalformedFrame

MAX_LEVELS = 2**15 - 1


@compressors.register("qsgd")
@dataclass(frozen=True)
class QSGD(Compressor):
    """Stochastic quantisation to s levels (Alistarh et al., NeurIPS 2017, Section 3.1).

    The whole vector is one bucket, u_i is uniform noise on [0, 1)::

        Q(v)_i = |v|_2 sgn(v_i) floor(s |v_i| / |v|_2 + u_i) / s

    Unbiased with omega = min(d / s^2, sqrt(d) / s) (Lemma 3.1 there). Contractive as it stands only
    where that is below 1; Q(v) / (1 + omega) always is.

    On the wire: 1 + ceil(log2(s + 1)) bits a coordinate of values, sign and level in one number
    from 0 to 2 s, of fixed width; s = 2^m - 1 wastes least. Metadata: the norm, a float32.

    ``pack`` raises ValueError for a vector whose norm is no finite float32: such a vector (a run
    that has diverged) has no representation.
    """

    levels: int = 15

    def __post_init__(self) -> None:
        if not 1 <= self.levels <= MAX_LEVELS:
            raise ValueError(f"levels must be from 1 to {MAX_LEVELS}, got {self.levels}")

    @property
    def width(self) -> int:
        """Bits a coordinate."""
        return (2 * self.levels).bit_length()

    def pack(self, vector: torch.Tensor, rng: np.random.Generator) -> Packed:
        """One number a coordinate, level + s, and the norm."""
        values = as_array(vector).astype(np.float64)
        norm = _rounded_up(math.sqrt(float(np.square(values).sum())))
        scaled = np.abs(values) * (self.levels / norm if norm > 0 else 0.0)
        level = np.minimum(np.floor(scaled + rng.random(len(values))), self.levels)
        codes = (self.levels + np.copysign(level, values)).astype(np.int64)
        return Packed(pack_uints(codes, self.width), pack_scale(norm))

    def unpack(self, packed: Packed, dim: int) -> torch.Tensor:
        """The quantised vector; a WireError for a wrong length, an impossible norm or level."""
        norm = unpack_scale(packed.metadata)
        signed = unpack_uints(packed.values, dim, self.width) - self.levels
        if signed.max(initial=0) > self.levels or (norm == 0 and signed.any()):
            raise MalformedFrame(f"a level above {self.levels}, or above 0 in a zero vector")
        return torch.from_numpy((norm * (signed / self.levels)).astype(np.float32))

    def max_bytes(self, dim: int) -> int:
        """The packed levels and the norm, always."""
        return fixed_bytes(dim, self.width) + 4

    def expected_bits(self, dim: int) -> float:
        """The packed levels and the norm."""
        return 8.0 * self.max_bytes(dim)

    def delta(self, dim: int) -> float | None:
        """1 - omega, where there are enough levels for omega < 1."""
        omega = self.omega(dim)
        return 1 - omega if omega < 1 else None

    def omega(self, dim: int) -> float:
        """min(d / s^2, sqrt(d) / s)."""
        return min(dim / self.levels**2, math.sqrt(dim) / self.levels)


def _rounded_up(norm: float) -> float:
    """The float32 at or just above ``norm``: were it below, a level above s would be needed."""
    if not norm <= FLOAT32_MAX:
        raise ValueError(f"qsgd cannot represent a vector of norm {norm}; has the run diverged?")
    nearest = np.float32(norm)
    return float(nearest if float(nearest) >= norm else np.nextafter(nearest, np.float32(np.inf)))
