"""The average over all nodes by an all-reduce in two phases, on the complete graph.

Node r gets the r-th of n parts of everyone's vector (reduce-scatter), averages, and gives its part
of the average to all (all-gather): 2 (n - 1) messages of ceil(d / n) floats per node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from tidings.api import Message, Node, Part, PartVector


class Share(Message):
    """The receiver's part of the sender's vector."""

    x: PartVector


class Average(Message):
    """The sender's part of the average vector."""

    x: PartVector


def check_complete(protocol: str, in_degrees: Sequence[int]) -> None:
    """ValueError unless every node hears every other one."""
    if min(in_degrees) != len(in_degrees) - 1:
        raise ValueError(f"{protocol} needs an all-reduce among all nodes: use complete")


async def average(
    u: torch.Tensor, node: Node, otherwise: torch.Tensor | None = None
) -> torch.Tensor:
    """The average of everyone's ``u`` ((d,) float32), the same bits on every node.

    Where a share does not come in time the part is the mean of those that did; where an average
    does not come, the part is that of ``otherwise`` ((d,) float32), or of the own ``u``.
    """
    parts = cut(u, node.n)
    await node.send_all({r: Share(parts[r]) for r in node.neighbors})
    shares = await node.gather(Share)
    rows = {r: share.x for r, share in shares.items()} | {node.id: parts[node.id]}
    mine = mean(rows)
    await node.send_all(node.to_neighbors(Average(mine)))
    # who averages may wait for a share as long before
    averages = await node.gather(Average, within_s=2 * node.wait_s)
    found = {r: average.x for r, average in averages.items()} | {node.id: mine}
    silent = parts if otherwise is None else cut(otherwise, node.n)
    return join([found.get(r, silent[r]) for r in range(node.n)], len(u))


def cut(u: torch.Tensor, parts: int, size: int | None = None) -> Sequence[torch.Tensor]:
    """Equal parts of a (d,) vector, the last ones filled up with zeros."""
    size = Part.length(len(u), parts) if size is None else size
    filled = torch.zeros(parts * size)
    filled[: len(u)] = u
    return list(filled.reshape(parts, size))


def join(parts: Sequence[torch.Tensor], dim: int) -> torch.Tensor:
    """The (dim,) vector of which these are the parts."""
    return torch.cat(list(parts))[:dim]


def mean(rows: Mapping[int, torch.Tensor]) -> torch.Tensor:
    """The mean of the rows, added in node order."""
    total = torch.zeros_like(next(iter(rows.values())))
    for r in sorted(rows):
        total += rows[r]
    return total / len(rows)
