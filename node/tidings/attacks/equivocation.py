"""Equivocation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch

from tidings.api import Attack, LocalProblem, View, attacks
from tidings.api.plugins import Knowledge


@attacks.register("equivocation")
@dataclass(frozen=True)
class Equivocation(Attack):
    """Another lie to every other receiver (two-faced faults; Lamport, Shostak & Pease, 1982).

    Wraps an ``attack``, by default a flipped sign. Receivers with even numbers get its lie, those
    with odd numbers ``odd``: its mirror image, or the truth::

        even:  lie,    odd:  2 honest - lie    ("mirror"),   honest    ("truth")

    Mirror images pull the honest nodes apart and leave their mean where it is, so what a rule that
    assumes one value from each sender makes of them shows as disagreement. On a star, where all
    clients have one receiver, it is the attack that it wraps.
    """

    attack: Attack = field(default_factory=lambda: Attack.parse("sign_flip"))
    odd: Literal["mirror", "truth"] = "mirror"

    @property
    def knowledge(self) -> Knowledge:  # type: ignore[override]
        """What the wrapped attack must know."""
        return self.attack.knowledge

    def corrupt(self, honest: torch.Tensor, view: View, rng: np.random.Generator) -> torch.Tensor:
        """The lie, its mirror image or the truth, by the receiver's number."""
        lie = self.attack.corrupt(honest, view, rng)
        if view.receiver % 2 == 0:
            return lie
        return honest.clone() if self.odd == "truth" else 2 * honest - lie

    def poison(self, problem: LocalProblem) -> LocalProblem:
        """As the wrapped attack."""
        return self.attack.poison(problem)
