"""EC: classic error feedback."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from tidings.api import Compressor, Node, protocols
from tidings.protocols.compressed.feedback import (
    ErrorFeedback,
    Model,
    Standing,
    Update,
    add_up,
    zeros,
)


@protocols.register("ec")
@dataclass(frozen=True)
class EC(ErrorFeedback):
    """Error feedback (Seide et al., 2014; EC-SGD in Stich & Karimireddy, JMLR 2020).

    Worker i keeps what its messages have left out so far, e_i, and adds it to the next one; e_i
    starts at 0, n workers, one of them the server itself::

        q_i  = C(e_i + g_i(x))                     to the server
        e_i <- e_i + g_i(x) - q_i
        x   <- x - lr (1/n) sum_i q_i              to all workers

    x - lr mean e_i is SGD on the same gradients. Where the workers' data differ, e_i does not
    vanish even at the optimum, and x stalls at a distance that grows with lr; see ``ef21`` and
    ``econtrol``.

    On the wire: q_i up, x down. Cost per round: n - 1 compressed messages and n - 1 of d floats.
    """

    lr: float
    compressor: Compressor = field(default_factory=lambda: Compressor.parse("top_k"))

    messages = (Model, Update, Standing)

    def start(self, node: Node) -> torch.Tensor:
        """No error yet."""
        return zeros(node)

    def compress(
        self, e: torch.Tensor, gradient: torch.Tensor, node: Node
    ) -> tuple[torch.Tensor, Update]:
        """The gradient with the error so far, compressed."""
        wanted = e + gradient
        q = self.compressor(wanted.float(), node.rng("compress"))
        return wanted - q.dense, Update(q)

    def step(
        self, total: torch.Tensor, sent: Mapping[int, Update], node: Node
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Against the mean of what was sent; there is no running total."""
        return total, self.lr / node.n * add_up((u.q.dense for u in sent.values()), node)
