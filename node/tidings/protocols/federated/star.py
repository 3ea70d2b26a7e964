"""What protocols of a server and its clients have in common."""

from __future__ import annotations

import torch

from tidings.api import Node
from tidings.units import Ratio


def check_hub(kind: str, in_degrees: tuple[int, ...]) -> None:
    """ValueError unless node 0, the server, hears every other node."""
    if in_degrees[0] != len(in_degrees) - 1:
        raise ValueError(f"{kind} needs a topology whose node 0 reaches all others: use star")


def check_training(local_steps: int, part: Ratio, name: str) -> None:
    """ValueError unless there is at least one local step of at least one client."""
    if local_steps < 1:
        raise ValueError(f"local_steps must be at least 1, got {local_steps}")
    if not part:
        raise ValueError(f"{name} must be above 0%")


async def sgd(node: Node, x: torch.Tensor, lr: float, steps: int, prox: float = 0) -> torch.Tensor:
    """``steps`` local SGD steps on f + prox/2 |. - x|^2 from ``x`` ((d,) float32), a new tensor."""
    y = x
    for _ in range(steps):
        gradient = await node.gradient(y)
        if prox:
            gradient = gradient.add(y - x, alpha=prox)
        y = y - lr * gradient
    return y
