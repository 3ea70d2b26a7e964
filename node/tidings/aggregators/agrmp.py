"""AGRMP, the pooling amplifier."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch.nn.functional import max_pool2d

from tidings.aggregators.density import Density
from tidings.api import Context, aggregators


@aggregators.register("agrmp")
@dataclass(frozen=True)
class AGRMP(Density):
    """AGRAMPLIFIER by max-pooling before the density filter (Gong et al., ACSAC 2022, Algorithm 1).

    Every layer's part of an update becomes a matrix, of which only the largest entry of each
    ``patch`` x ``patch`` square is looked at; the filter decides by these, and keeps originals::

        amp(x) = concatenation over layers of max over squares of the (d_out, d_in) matrix
        out    = ``density`` with C_ij from amp(x_i)

    The maximum is signed, as in the paper: a large negative entry vanishes beside a small positive
    one. Squares that do not fit are dropped. Not said in the paper: a bias is pooled along its one
    axis, and a layer narrower than ``patch`` in windows of its own width.
    """

    patch: int = field(default=3, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.patch < 1:
            raise ValueError(f"patch must be at least 1, got {self.patch}")

    def amplified(self, rows: torch.Tensor, context: Context) -> torch.Tensor:
        """The pooled layers, side by side; one layer where the problem has no layers."""
        shapes = None if context.problem is None else context.problem.shapes
        return pooled(rows, shapes or ((rows.shape[1],),), self.patch)


def pooled(rows: torch.Tensor, shapes: tuple[tuple[int, ...], ...], patch: int) -> torch.Tensor:
    """The largest entry of every square of every layer: (m, l) of (m, d) rows."""
    sizes = [torch.Size(shape).numel() for shape in shapes]
    parts = []
    for layer, shape in zip(torch.split(rows, sizes, dim=1), shapes, strict=True):
        height = shape[0] if len(shape) > 1 else 1
        matrix = layer.reshape(len(rows), 1, height, -1)
        window = min(patch, height), min(patch, matrix.shape[3])
        parts.append(max_pool2d(matrix, window, stride=window).flatten(1))
    return torch.cat(parts, dim=1)
