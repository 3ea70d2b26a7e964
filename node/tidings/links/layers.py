"""What faults lay over a link, and how several of them add up. Pure.

Rates: the smallest wins. Delays add. Jitter: variances add. Scaling is of the link as it was asked
for, whatever else lies over it. Taking a layer away leaves the others as they are. Losses and cuts
are no layers: they strike messages, see :mod:`tidings.runtime.strikes`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from tidings.links.shape import LinkShape


@dataclass(frozen=True)
class Layer:
    """One fault's change to a directed link; what is None is left alone."""

    #: bit/s, at most
    rate_bit_per_s: float | None = None
    #: ns, on top
    delay_ns: int = 0
    #: ns, on top, in the sense of variances
    jitter_ns: int = 0
    #: of the rate that was asked for
    rate_factor: float = 1.0
    #: of the delay that was asked for
    delay_factor: float = 1.0


def compose(base: LinkShape, layers: Iterable[Layer]) -> LinkShape:
    """The link under all ``layers``; their order does not matter."""
    rate, delay = base.rate_bit_per_s, float(base.delay_ns)
    rates, added_ns, variance = [math.inf], 0, float(base.jitter_ns) ** 2
    for layer in layers:
        rate *= layer.rate_factor
        delay *= layer.delay_factor
        rates.append(math.inf if layer.rate_bit_per_s is None else layer.rate_bit_per_s)
        added_ns += layer.delay_ns
        variance += float(layer.jitter_ns) ** 2
    return replace(
        base,
        rate_bit_per_s=min(rate, *rates),
        delay_ns=round(delay) + added_ns,
        jitter_ns=round(math.sqrt(variance)),
    )
