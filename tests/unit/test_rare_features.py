"""The problem with rare features: gradients, constants and who holds what."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tidings.problems.rare_features import RareFeatures

pytestmark = pytest.mark.unit

NODES = 6


def test_gradients_constants_and_optimum() -> None:
    problem = RareFeatures()
    shares = [problem.local(node, NODES, 3) for node in range(NODES)]
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.standard_normal(problem.dim)).float()
    gradient = torch.stack([share.gradient(x, rng) for share in shares]).mean(dim=0)
    measured = shares[0].evaluate(x)
    assert measured["gradient"] == pytest.approx(float(gradient.square().sum()), rel=1e-4)
    # by finite differences of the loss
    for j in range(0, problem.dim, 7):
        step = 0.01 * torch.eye(problem.dim)[j]
        rise = shares[1].evaluate(x + step)["loss"] - shares[1].evaluate(x - step)["loss"]
        assert rise / 0.02 == pytest.approx(float(gradient[j]), abs=2e-3)
    known = shares[2].smoothness
    assert known is not None
    assert known.local[0] == pytest.approx(50.1)
    assert all(constant <= 1.1 + 1e-9 for constant in known.local[1:])
    assert known.average <= known.arithmetic_mean < known.quadratic_mean
    assert known.quadratic_mean / known.arithmetic_mean > 0.8 * np.sqrt(NODES)


def test_every_feature_has_its_holders() -> None:
    problem = RareFeatures(holders=2, noise=0.0)
    rng = np.random.default_rng(0)
    origin = torch.zeros(problem.dim)
    shares = [problem.local(node, NODES, 3) for node in range(NODES)]
    holders = torch.stack([share.gradient(origin, rng) != 0 for share in shares]).sum(dim=0)
    assert (holders == 2).all()
    with pytest.raises(ValueError, match="7 holders"):
        RareFeatures(holders=7).local(0, NODES, 0)
    with pytest.raises(ValueError, match="positive"):
        RareFeatures(outlier=0.0)
