"""Shifting back to the start."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from tidings.api import Attack, View, attacks


@attacks.register("shift_back")
@dataclass(frozen=True)
class ShiftBack(Attack):
    """The way back to the start, by a majority (Malinovsky et al., NeurIPS 2024, Section 5).

    Attackers behave well until chance gives them a majority of the nodes that were drawn, which no
    robust rule withstands; then they undo what was learned::

        sent = x^0 - x^k    where most of those that send are attackers,    else honest

    They know who was drawn where the protocol draws by a shared stream (``Node.cohort``); else they
    count their neighbourhood.
    """

    def corrupt(self, honest: torch.Tensor, view: View, rng: np.random.Generator) -> torch.Tensor:
        """x^0 - x^k, or the honest vector."""
        if 2 * view.attackers > view.nodes:
            return view.start - view.model
        return honest.clone()
