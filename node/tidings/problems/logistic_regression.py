"""Logistic regression on real tables."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import AfterValidator
from torch import nn
from torch.nn import functional

from tidings.api import Constants, Dataset, LocalProblem, problems
from tidings.problems.digits import digits_images
from tidings.problems.logistic_objective import LogisticObjective
from tidings.problems.packaged import hold_out, packaged_file, standardized
from tidings.problems.supervised import Common, LocalSupervised, SupervisedProblem, share_out
from tidings.problems.tables import read_table
from tidings.registry import resolve_path

#: every fifth sample is held out
_TEST_FRACTION = 0.2


#: data sets that a package carries
PACKAGED = ("breast_cancer", "digits")


def _resolve(dataset: str) -> str:
    return dataset if dataset in PACKAGED else resolve_path(dataset)


@problems.register("logistic_regression")
@dataclass(frozen=True)
class LogisticRegression(SupervisedProblem):
    """Regularised logistic regression, binary or multinomial (Cox, 1958).

    ``f_i(x) = 1/m_i sum_k -log p_x(y_k | a_k) + l2/2 |x|^2`` with logits linear in the features and
    a constant one (regularised as well, without which mu would be 0). Two classes have one logit,
    C > 2 classes have C. ``evaluate`` gives the ``loss`` of the whole training objective, in
    float64, and the ``accuracy`` on the held-out fifth; of two classes also ``suboptimality``.

    Constants, where l2 > 0: mu = l2; smoothness ``l2 + c max_i lambda_max(A_i^T A_i) / m_i`` with c
    = 1/4 for two classes and 1/2 for more (Boehning, 1992); the optimum by Newton's method.
    """

    #: "breast_cancer" (binary, 569 x 30), "digits" (10 classes, 1,797 x 64), both as scikit-learn
    #: carries them (extra "data"), or the path of a .csv or LIBSVM file on every node
    dataset: Annotated[str, AfterValidator(_resolve)] = "breast_cancer"
    #: the column of a CSV file that holds the class; None (null) for the last one
    target: str | None = None
    #: shift and scale each feature by the training set's mean and standard deviation
    standardize: bool = True
    batch_size: int | None = field(default=32, kw_only=True)
    l2: float = field(default=0.01, kw_only=True)

    def data(self) -> tuple[Dataset, Dataset]:
        """(N, D) features and classes; ValueError for a file that does not parse."""
        if self.dataset == "digits":
            return _flat(digits_images())
        if self.dataset == "breast_cancer":
            features, classes = _breast_cancer()
        else:
            features, classes = read_table(Path(self.dataset), self.target)
        rows = hold_out(classes, _TEST_FRACTION)
        train, test = (Dataset(features[part], classes[part]) for part in rows)
        return standardized(train, test, axis=0) if self.standardize else (train, test)

    def module(self) -> nn.Module:
        """A linear map with bias, at zero; one output for two classes."""
        train, _ = self.loaded()
        classes = int(train.targets.max()) + 1
        linear = nn.Linear(train.features.shape[1], 1 if classes == 2 else classes)
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
        return linear

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean negative log-likelihood of the classes."""
        if outputs.shape[-1] > 1:
            return functional.cross_entropy(outputs, targets)
        return functional.binary_cross_entropy_with_logits(
            outputs.squeeze(-1), targets.to(outputs.dtype)
        )

    def predict(self, outputs: torch.Tensor) -> torch.Tensor:
        """The likeliest class."""
        return outputs.argmax(-1) if outputs.shape[-1] > 1 else (outputs.squeeze(-1) > 0).long()

    def local(self, node: int, nodes: int, seed: int) -> LocalProblem:
        """Node ``node``'s share; ValueError where a node would get no sample."""
        return LocalLogisticRegression(share_out(self, nodes, seed), node)


class LocalLogisticRegression(LocalSupervised):
    """One node's samples, and the whole objective where it is asked for."""

    @functools.cached_property
    def constants(self) -> Constants | None:
        """Computed when first asked for; None without a regulariser."""
        return _constants(self.common)

    def minimizer(self, linear: torch.Tensor, ridge: float) -> torch.Tensor:
        """By Newton's method on the local samples; ValueError without any regulariser."""
        l2 = self.problem.l2
        if l2 + ridge <= 0:
            raise ValueError("logistic regression needs l2 > 0 for a minimiser")
        classes = self.data.targets[self.rows]
        weights = torch.full((len(classes),), 1 / len(classes), dtype=torch.float64)
        features = self.data.features[self.rows].double()
        count = int(self.common.train.targets.max()) + 1
        return LogisticObjective(features, classes, weights, l2, count).minimizer(linear, ridge)

    def evaluate(self, x: torch.Tensor) -> Mapping[str, float]:
        """``loss`` f(x) over all nodes' training samples, ``accuracy`` on the test set.

        Of two classes ``suboptimality`` f(x) - f* too, where l2 > 0; of more its minimiser would
        take each process seconds.
        """
        objective = _objective(self.common)
        measured = {**super().evaluate(x), "loss": float(objective.value(x.double()))}
        if objective.outputs == 1 and self.constants is not None:
            measured["suboptimality"] = measured["loss"] - self.constants.optimum_value
        return measured


@functools.lru_cache(maxsize=4)
def _objective(common: Common) -> LogisticObjective:
    """The plain average of the nodes' objectives: a sample weighs 1 / (nodes * its node's m)."""
    features, classes, weights = [], [], []
    for node in range(common.nodes):
        data, rows = common.share(node)
        features.append(data.features[rows].double())
        classes.append(data.targets[rows])
        weight = 1 / (common.nodes * len(rows))
        weights.append(torch.full((len(rows),), weight, dtype=torch.float64))
    return LogisticObjective(
        torch.cat(features), torch.cat(classes), torch.cat(weights), common.problem.l2
    )


@functools.lru_cache(maxsize=4)
def _constants(common: Common) -> Constants | None:
    l2 = common.problem.l2
    if l2 == 0:
        return None
    objective = _objective(common)
    curvature = 0.0
    start = 0
    for share in common.shares:
        own = objective.features[start : start + len(share)]
        start += len(share)
        norm = float(torch.linalg.matrix_norm(own, ord=2))
        curvature = max(curvature, norm**2 / len(share))
    factor = 0.25 if objective.outputs == 1 else 0.5
    optimum = objective.minimizer()
    value = float(objective.value(optimum))
    return Constants(l2, l2 + factor * curvature, optimum.float(), value)


def _flat(sets: tuple[Dataset, Dataset]) -> tuple[Dataset, Dataset]:
    train, test = (Dataset(part.features.reshape(len(part), -1), part.targets) for part in sets)
    return train, test


@functools.cache
def _breast_cancer() -> tuple[np.ndarray, np.ndarray]:
    """The features and classes (0 malignant, 1 benign) of Street, Wolberg, Mangasarian (1993)."""
    path = "datasets/data/breast_cancer.csv"
    file = packaged_file("sklearn", path, "data set 'breast_cancer'")
    table = np.loadtxt(file, delimiter=",", skiprows=1)
    return table[:, :-1].astype(np.float32), table[:, -1].astype(np.int64)
