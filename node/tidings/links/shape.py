"""What was asked of a link and of a node's network card, and the draws that make it random."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

JitterKind = Literal["uniform", "normal", "exponential", "pareto"]

_MASK = (1 << 64) - 1
_NORMAL = NormalDist()
#: Pareto tail index: finite mean, infinite variance, as round-trip times are often modelled
_PARETO_SHAPE = 2.5


@dataclass(frozen=True)
class LinkShape:
    """One directed link as it was asked for."""

    #: bit/s; infinity for a link that is not shaped
    rate_bit_per_s: float = math.inf
    #: one-way delay, ns
    delay_ns: int = 0
    #: Scale of the random part of the delay, ns: half-width (uniform), standard deviation (normal),
    #: mean (exponential, pareto). The last two only add.
    jitter_ns: int = 0
    jitter_kind: JitterKind = "uniform"
    #: probability that a message is lost
    loss: float = 0.0
    #: bytes that wait for the link before a send is held back
    queue_bytes: int = 16 << 20

    @property
    def shaped(self) -> bool:
        """Whether anything at all was asked of the link."""
        return self != LinkShape(queue_bytes=self.queue_bytes)


@dataclass(frozen=True)
class NicShape:
    """A node's network card: all its links share each direction."""

    egress_bit_per_s: float = math.inf
    ingress_bit_per_s: float = math.inf


def serialization_ns(size_bytes: int, rate_bit_per_s: float) -> int:
    """How long ``size_bytes`` occupy a line of that rate."""
    return 0 if math.isinf(rate_bit_per_s) else round(size_bytes * 8e9 / rate_bit_per_s)


@dataclass(frozen=True)
class Draw:
    """The fate of one message: whether it is lost, and how much its delay differs."""

    lost: bool
    jitter_ns: int


class Dice:
    """Fates by (run, link, sequence number): the same messages are lost on every transport.

    ``purpose`` is for draws beside the link's own: a fault's.
    """

    def __init__(self, seed: int, source: int, target: int, purpose: str = "") -> None:
        text = f"{seed}:{source}->{target}{purpose and ':' + purpose}".encode()
        self._key = int.from_bytes(hashlib.sha256(text).digest()[:8], "little")

    def draw(self, shape: LinkShape, sequence: int) -> Draw:
        """The fate of the link's message number ``sequence``."""
        lost = shape.loss > 0 and self.uniform(2 * sequence) < shape.loss
        if shape.jitter_ns == 0:
            return Draw(lost, 0)
        u = self.uniform(2 * sequence + 1)
        return Draw(lost, round(shape.jitter_ns * _deviate(shape.jitter_kind, u)))

    def uniform(self, counter: int) -> float:
        """Draw number ``counter``: splitmix64 of (key, counter), in (0, 1)."""
        z = (self._key + (counter + 1) * 0x9E3779B97F4A7C15) & _MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        return ((z ^ (z >> 31)) + 0.5) / 2.0**64


def _deviate(kind: JitterKind, u: float) -> float:
    """A deviate of unit scale from a uniform one."""
    if kind == "uniform":
        return 2 * u - 1
    if kind == "normal":
        return _NORMAL.inv_cdf(min(max(u, 1e-12), 1 - 1e-12))
    if kind == "exponential":
        return -math.log(1 - u) if u < 1 else 40.0
    # Lomax (Pareto from zero) with mean 1
    tail = math.exp(-math.log(1 - min(u, 1 - 1e-12)) / _PARETO_SHAPE)
    return (_PARETO_SHAPE - 1) * (tail - 1)
