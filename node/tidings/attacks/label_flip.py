"""Label flipping."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from tidings.api import Attack, LocalProblem, View, attacks


@attacks.register("label_flip")
@dataclass(frozen=True)
class LabelFlip(Attack):
    """Training on wrong classes (Biggio et al., ICML 2012; Fang et al., USENIX Security 2020).

    The attacker follows the protocol to the letter, on data whose classes are changed::

        y <- C - 1 - y                          all samples
        y <- target  where y = source           where both are given

    An attack on data, not on messages: it needs a problem with classes, and works through whatever
    the protocol makes of gradients. The test set, and so what is measured, stays as it is.
    """

    source: int | None = None
    target: int | None = None

    def __post_init__(self) -> None:
        if (self.source is None) != (self.target is None):
            raise ValueError("source and target are given together, or neither")
        if self.source is not None and self.source == self.target:
            raise ValueError(f"source and target are both {self.source}: nothing would change")

    def corrupt(self, honest: torch.Tensor, view: View, rng: np.random.Generator) -> torch.Tensor:
        """The message as the protocol made it of the poisoned data."""
        return honest.clone()

    def poison(self, problem: LocalProblem) -> LocalProblem:
        """The share with its classes changed; ValueError where it has none, or not these."""
        return problem.relabelled(self._flip)

    def _flip(self, classes: np.ndarray, count: int) -> np.ndarray:
        if self.source is None or self.target is None:
            return count - 1 - classes
        if not (0 <= self.source < count and 0 <= self.target < count):
            raise ValueError(f"source and target must be classes: 0 to {count - 1}")
        return np.where(classes == self.source, self.target, classes)
