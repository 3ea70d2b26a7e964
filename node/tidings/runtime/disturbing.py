"""Training data as faults leave it."""

from __future__ import annotations

import numpy as np

from tidings.api.problems import LocalProblem


def noisy(problem: LocalProblem, fraction: float, rng: np.random.Generator) -> LocalProblem:
    """A share of which a ``fraction`` of the samples has another class, drawn evenly.

    ValueError where there are no classes.
    """

    def relabel(targets: np.ndarray, classes: int) -> np.ndarray:
        wrong = rng.choice(len(targets), round(fraction * len(targets)), replace=False)
        changed = targets.copy()
        changed[wrong] = (targets[wrong] + rng.integers(1, classes, len(wrong))) % classes
        return changed

    return problem.relabelled(relabel)


def shifted(problem: LocalProblem, size: float, rng: np.random.Generator) -> LocalProblem:
    """A share of which all features are moved along one random direction.

    By ``size`` standard deviations of each feature on average. ValueError where there are none.
    """

    def change(features: np.ndarray) -> np.ndarray:
        direction = rng.choice([-1.0, 1.0], features.shape[1:])
        step = size * features.std(axis=0) * direction
        moved: np.ndarray = (features + step).astype(np.float32)
        return moved

    return problem.moved(change)
