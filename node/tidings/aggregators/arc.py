"""Adaptive robust clipping."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from tidings.aggregators.gram import Points
from tidings.aggregators.pre import PreAggregator, clipped
from tidings.api import Context, aggregators


@aggregators.register("arc")
@dataclass(frozen=True)
class ARC(PreAggregator):
    """The longest rows shortened to the next one before another rule (Allouah et al., ICLR 2025).

    Adaptive robust clipping: with the rows' norms in decreasing order,
    |x_(1)| >= |x_(2)| >= ...::

        k = floor(2 (f / m) (m - f)),    C = |x_(k+1)|,    y_i = min(1, C / |x_i|) x_i

    So exactly the k longest rows change. It keeps the robustness of ``then`` up to a constant,
    which clipping at a fixed length does not, and bounds the result by honest norms even where
    honest nodes differ much. For gradients and updates, not for models. With f = 0 nothing changes.

    ``then`` is the trimmed mean where none is given.
    """

    def weights(self, points: Points, context: Context) -> tuple[torch.Tensor, int]:
        """min(1, C / |x_i|) on the diagonal."""
        norms = points.norms()
        longest = math.floor(2 * context.f * (len(points) - context.f) / len(points))
        limit = float(norms.sort(descending=True).values[longest])
        return clipped(norms, limit), context.own
