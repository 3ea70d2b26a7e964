"""D-EC: error feedback on gradient differences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from tidings.api import Compressed, Compressor, Message, Node, protocols
from tidings.protocols.compressed.feedback import ErrorAndShift, Model, Standing, WithShift, add_up


class Pair(Message):
    """The compressed gradient difference with its error, and the one that moves the shift."""

    q: Compressed
    r: Compressed

    sender = "client"


@protocols.register("d_ec")
@dataclass(frozen=True)
class DEC(WithShift):
    """D-EC (Gao, Islamov & Stich, ICLR 2024; EC-SGD-DIANA of Gorbunov et al., NeurIPS 2020).

    Error feedback on the difference to a shift h_i that learns g_i, by a second message. h_i and
    e_i start at 0, h = mean h_i at the server::

        q_i  = C(e_i + g_i(x) - h_i),   r_i = C(g_i(x) - h_i)     to the server
        e_i <- e_i + g_i(x) - h_i - q_i
        x   <- x - lr (h + (1/n) sum_i q_i)                       to all workers
        h_i <- h_i + r_i,               h <- h + (1/n) sum_i r_i

    Exact on heterogeneous data, where ``ec`` stalls, for twice as much up the link. Sources do not
    agree on whether the step uses h before or after r_i; see decision 20.

    On the wire: q_i and r_i up, x down. Cost per round: n - 1 messages of two compressed vectors,
    n - 1 of d floats.
    """

    lr: float
    compressor: Compressor = field(default_factory=lambda: Compressor.parse("top_k"))

    messages = (Model, Pair, Standing)

    def compress(
        self, memory: ErrorAndShift, gradient: torch.Tensor, node: Node
    ) -> tuple[ErrorAndShift, Pair]:
        """Two compressed vectors."""
        e, h = memory
        difference = gradient - h
        q = self.compressor((e + difference).float(), node.rng("compress"))
        r = self.compressor(difference.float(), node.rng("compress shift"))
        return (e + difference - q.dense, h + r.dense), Pair(q, r)

    def step(
        self, h: torch.Tensor, sent: Mapping[int, Pair], node: Node
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Against the mean estimate; then the mean shift moves."""
        estimate = h + add_up((pair.q.dense for pair in sent.values()), node) / node.n
        h = h + add_up((pair.r.dense for pair in sent.values()), node) / node.n
        return h, self.lr * estimate

    def moved(self, message: Pair) -> torch.Tensor:
        """By r_i."""
        return message.r.dense
