"""Looking into a module's first convolution."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from tidings.problems.flat import FlatModule


def first_convolution(module: nn.Module) -> nn.Conv2d:
    """The first of its layers that is a convolution; ValueError where none is."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            return layer
    raise ValueError(f"{type(module).__name__} has no convolution; of images take model: cnn")


@contextmanager
def watching(layer: nn.Module) -> Iterator[list[torch.Tensor]]:
    """What comes out of the layer, call by call, while the block lasts."""
    seen: list[torch.Tensor] = []
    hook = layer.register_forward_hook(lambda _, __, output: seen.append(output))
    try:
        yield seen
    finally:
        hook.remove()


def channel_places(flat: FlatModule) -> torch.Tensor:
    """Where in the flat vector each output channel's parameters are: (channels, q) int64."""
    layer = first_convolution(flat.module)
    starts = torch.tensor([0, *flat.sizes]).cumsum(0)
    parts = []
    for parameter, start in zip(flat.parameters, starts.tolist(), strict=False):
        if parameter is layer.weight or parameter is layer.bias:
            numbers = start + torch.arange(parameter.numel())
            parts.append(numbers.view(layer.out_channels, -1))
    return torch.cat(parts, dim=1)
