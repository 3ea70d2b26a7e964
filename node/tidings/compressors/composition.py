"""A sparsifier whose values are quantised."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

import numpy as np
import torch

from tidings.api import Compressor, Packed, compressors
from tidings.compressors.bitpacking import as_array, pack_floats, unpack_floats
from tidings.compressors.rand_k import RandK
from tidings.compressors.selection import kept
from tidings.compressors.top_k import TopK


@compressors.register("composition")
@dataclass(frozen=True)
class Composition(Compressor):
    """A sparsifier, then a quantizer of what it keeps (Basu et al., NeurIPS 2019, Lemma 3).

    With S the k coordinates that the sparsifier keeps of v (top-k, rand-k)::

        C(v)_i = Q(v_S)_i  if i in S,  else 0      (times d / k where rand-k is ``scaled``)

    Q sees a vector of k numbers, so its constants are those for k. Where Q is contractive and
    rand-k not scaled, delta = delta_S delta_Q, for what is kept is orthogonal to what is not.
    Where both are unbiased, omega = (1 + omega_S)(1 + omega_Q) - 1.

    On the wire: what Q sends of the k values; metadata what the sparsifier sends of the places
    (indices or a seed), then Q's (a scale).
    """

    #: which coordinates are kept: top_k or rand_k
    sparsifier: Compressor = field(default_factory=lambda: Compressor.parse("top_k"))
    #: how their values travel
    quantizer: Compressor = field(default_factory=lambda: Compressor.parse("natural"))

    def __post_init__(self) -> None:
        """ValueError unless the first is a sparsifier and the second is none."""
        wrong = isinstance(self.quantizer, TopK | RandK | Composition)
        if wrong or not isinstance(self.sparsifier, TopK | RandK):
            raise ValueError(
                "composition takes a sparsifier (top_k, rand_k), then a quantizer of its values; "
                f"got {self.sparsifier.kind}, then {self.quantizer.kind}"
            )

    def pack(self, vector: torch.Tensor, rng: np.random.Generator) -> Packed:
        """The kept values by the quantizer, and where they belong."""
        sparse = self.sparsifier.pack(vector, rng)
        values = unpack_floats(sparse.values, self._kept(len(vector)))
        dense = self.quantizer.pack(torch.from_numpy(values), rng)
        return Packed(dense.values, sparse.metadata + dense.metadata)

    def unpack(self, packed: Packed, dim: int) -> torch.Tensor:
        """The sparse vector, dense; a WireError for what either of the two refuses."""
        count = self._kept(dim)
        split = max(0, len(packed.metadata) - _metadata_bytes(self.quantizer, count))
        places, scales = packed.metadata[:split], packed.metadata[split:]
        values = self.quantizer.unpack(Packed(packed.values, scales), count)
        return self.sparsifier.unpack(Packed(pack_floats(as_array(values)), places), dim)

    def max_bytes(self, dim: int) -> int:
        """The quantizer's for k values, and the places."""
        count = self._kept(dim)
        return self.quantizer.max_bytes(count) + self.sparsifier.max_bytes(dim) - 4 * count

    def expected_bits(self, dim: int) -> float:
        """The quantizer's for k values, and the places."""
        count = self._kept(dim)
        places = self.sparsifier.expected_bits(dim) - 32 * count
        return self.quantizer.expected_bits(count) + places

    def delta(self, dim: int) -> float | None:
        """delta_S delta_Q; for scaled rand-k 1 - omega, where that is positive."""
        omega = self.omega(dim)
        if self.sparsifier.omega(dim) is not None:
            return 1 - omega if omega is not None and omega < 1 else None
        kept_, quantised = self.sparsifier.delta(dim), self.quantizer.delta(self._kept(dim))
        return None if kept_ is None or quantised is None else kept_ * quantised

    def omega(self, dim: int) -> float | None:
        """(1 + omega_S)(1 + omega_Q) - 1, where both are unbiased."""
        places, values = self.sparsifier.omega(dim), self.quantizer.omega(self._kept(dim))
        return None if places is None or values is None else (1 + places) * (1 + values) - 1

    def _kept(self, dim: int) -> int:
        assert isinstance(self.sparsifier, TopK | RandK)
        return kept(self.sparsifier.ratio, dim)


@functools.lru_cache(maxsize=16)
def _metadata_bytes(quantizer: Compressor, count: int) -> int:
    """How much metadata a quantizer sends of ``count`` values: the same for all values."""
    return len(quantizer.pack(torch.zeros(count), np.random.default_rng(0)).metadata)
