"""Static clipping."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from tidings.aggregators.gram import Points
from tidings.aggregators.pre import PreAggregator, clipped
from tidings.api import Context, aggregators


@aggregators.register("clipping")
@dataclass(frozen=True)
class Clipping(PreAggregator):
    """Rows shortened to a fixed length before another rule (Pascanu et al., ICML 2013).

    ::

        y_i = min(1, c / |x_i|) x_i,    out = then(y_1, ..., y_m)

    For gradients and updates, not for models, which need not lie near the origin. A fixed c can
    take away the robustness that ``then`` has (Allouah et al., ICLR 2025): ``arc`` adapts it.

    ``then`` is the trimmed mean where none is given.
    """

    c: float = field(default=2.0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.c > 0:
            raise ValueError(f"c must be above zero, got {self.c}")

    def weights(self, points: Points, context: Context) -> tuple[torch.Tensor, int]:
        """min(1, c / |x_i|) on the diagonal."""
        return clipped(points.norms(), self.c), context.own
