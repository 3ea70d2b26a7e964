"""Mimic."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import normalize

from tidings.api import Attack, View, attacks
from tidings.attacks.knowledge import Others


@attacks.register("mimic")
@dataclass(frozen=True)
class Mimic(Attack):
    """All attackers repeat one honest node (Karimireddy, He & Jaggi, ICLR 2022, Section 4).

    Its data then count too much, and nothing looks wrong. Whom: ``who``, or the one that stands out
    the most along the direction z in which the honest differ the most::

        z <- normalize(t/(t+1) z + 1/(t+1) normalize(sum_i <x_i - mean, z> (x_i - mean)))
        who = argmax_i <z, x_i>

    z starts as the honest vector that is the farthest from the mean, and takes a step of Oja's rule
    in each of the first ``warmup`` rounds; then the choice is kept. Where the chosen one is not
    heard, the own honest message is sent. The attackers agree as far as they see the same.
    """

    who: int | None = None
    warmup: int = 1
    #: "neighbors", or "omniscient": on a star clients hear no other client
    knowledge: Others = "neighbors"

    def __post_init__(self) -> None:
        if self.warmup < 1:
            raise ValueError(f"warmup must be at least 1, got {self.warmup}")

    def corrupt(self, honest: torch.Tensor, view: View, rng: np.random.Generator) -> torch.Tensor:
        """A copy of the chosen node's vector."""
        chosen = self._choose(view) if self.who is None else self.who
        # row 0 is its own
        row = view.sources.index(chosen, 1) if chosen in view.sources[1:] else 0
        return view.honest[row].clone()

    def _choose(self, view: View) -> int:
        memory, others = view.memory, view.honest[1:].double()
        rounds = memory.get("rounds", 0)
        if memory.get("round") != view.round and rounds < self.warmup and len(others):
            away = others - others.mean(dim=0)
            z = memory.get("z")
            if z is None:
                z = normalize(away[int(away.square().sum(dim=1).argmax())], dim=0)
            step = normalize((away @ z) @ away, dim=0)
            z = normalize(rounds / (rounds + 1) * z + step / (rounds + 1), dim=0)
            chosen = view.sources[1 + int((away @ z).argmax())]
            memory.update(round=view.round, rounds=rounds + 1, z=z, chosen=chosen)
        return int(memory.get("chosen", view.sources[0]))
