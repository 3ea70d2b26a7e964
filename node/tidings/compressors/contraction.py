"""An unbiased compressor made contractive."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from tidings.api import Compressor, Packed, compressors
from tidings.errors import MalformedFrame


@compressors.register("contraction")
@dataclass(frozen=True)
class Contraction(Compressor):
    """An unbiased compressor, its result divided by 1 + omega (Richtarik et al., NeurIPS 2021).

    With Q unbiased and of variance omega::

        C(v) = Q(v) / (1 + omega)

    Contractive with delta = 1 / (1 + omega), whatever omega: E|C(v) - v|^2 =
    E|Q(v) - v|^2 / (1 + omega)^2 + (omega / (1 + omega))^2 |v|^2 <= omega / (1 + omega) |v|^2.

    On the wire: what Q sends; the receiver divides too.
    """

    #: the unbiased compressor
    of: Compressor = field(default_factory=lambda: Compressor.parse("qsgd"))

    def __post_init__(self) -> None:
        """ValueError for a compressor that is biased."""
        if self.of.omega(1) is None:
            raise ValueError(f"{self.of.kind} is biased; contraction is for unbiased compressors")

    def pack(self, vector: torch.Tensor, rng: np.random.Generator) -> Packed:
        """As Q does."""
        return self.of.pack(vector, rng)

    def unpack(self, packed: Packed, dim: int) -> torch.Tensor:
        """What Q makes of it, smaller."""
        return self.of.unpack(packed, dim) / (1 + self._omega(dim))

    def max_bytes(self, dim: int) -> int:
        """As Q."""
        return self.of.max_bytes(dim)

    def expected_bits(self, dim: int) -> float:
        """As Q."""
        return self.of.expected_bits(dim)

    def delta(self, dim: int) -> float:
        """1 / (1 + omega)."""
        return 1 / (1 + self._omega(dim))

    def _omega(self, dim: int) -> float:
        omega = self.of.omega(dim)
        if omega is None:
            raise MalformedFrame(f"{self.of.kind} has no variance constant for {dim} parameters")
        return omega
