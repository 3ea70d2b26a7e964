"""A message with every kind of field, and the protocol that declares it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
import torch

from tidings.api import By, Compressed, Compressor, Message, Node, Protocol, Vector

DIM = 40


class Everything(Message):
    """Every kind of field, out of any order."""

    count: int
    x: Vector
    on: bool
    q: Compressed
    scale: float
    y: Vector
    again: int
    down: Annotated[Compressed, By("second")]


class Empty(Message):
    """No field at all."""


class Dense(Message):
    """One vector."""

    x: Vector


@dataclass(frozen=True)
class AllKinds(Protocol):
    """Declares them; never run."""

    compressor: Compressor = field(default_factory=lambda: Compressor.parse("top_k"))
    second: Compressor = field(default_factory=lambda: Compressor.parse("sign"))
    lr: float = 0.1

    messages = (Everything, Empty, Dense)

    async def run(self, node: Node) -> None:
        raise NotImplementedError


def vector(seed: int = 0, dim: int = DIM) -> torch.Tensor:
    """A normal vector, (dim,) float32."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(dim)).float()


def everything(protocol: AllKinds, seed: int = 0) -> Everything:
    """One of each, drawn from a seed."""
    rng = np.random.default_rng(seed)
    return Everything(
        count=int(rng.integers(-(2**40), 2**40)),
        x=vector(seed + 1),
        on=bool(rng.integers(2)),
        q=protocol.compressor(vector(seed + 2), rng),
        scale=float(rng.standard_normal()),
        y=vector(seed + 3),
        again=int(rng.integers(100)),
        down=protocol.second(vector(seed + 4), rng),
    )
