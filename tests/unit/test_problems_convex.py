"""Quadratics, least squares and logistic regression: constants and heterogeneity."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tidings.api import Constants, LocalProblem, Problem
from tidings.problems.supervised import LocalSupervised

pytestmark = pytest.mark.unit

CONVEX: list[dict[str, Any]] = [
    {"kind": "quadratic", "dim": 12, "mu": 0.5, "smoothness": 20.0},
    {"kind": "quadratic", "dim": 12, "structure": "diagonal", "heterogeneity": 0.3},
    {"kind": "least_squares", "dim": 12},
    {"kind": "logistic_regression", "batch_size": None, "partition": "quantity_skew"},
    {
        "kind": "logistic_regression",
        "dataset": "digits",
        "batch_size": None,
        "partition": {"kind": "dirichlet", "alpha": 0.2},
    },
    {
        "kind": "logistic_regression",
        "l2": 0.001,
        "batch_size": None,
        "partition": {"kind": "feature_shift", "offset": 1.0},
    },
]
convex = pytest.mark.parametrize(
    "config", CONVEX, ids=["dense", "diagonal", "rows", "cancer", "digits", "shifted"]
)
NODES = 4


def nodes_of(config: object, seed: int = 1, nodes: int = NODES) -> list[LocalProblem]:
    problem = Problem.parse(config)
    return [problem.local(node, nodes, seed) for node in range(nodes)]


def mean_gradient(locals_: list[LocalProblem], x: torch.Tensor) -> torch.Tensor:
    rng = np.random.default_rng(0)
    return torch.stack([local.gradient(x, rng).double() for local in locals_]).mean(dim=0)


def constants_of(local: LocalProblem) -> Constants:
    assert local.constants is not None
    return local.constants


@convex
def test_the_gradient_vanishes_at_the_optimum_and_nowhere_else(config: dict[str, Any]) -> None:
    locals_ = nodes_of(config)
    constants = constants_of(locals_[0])
    assert constants.optimum.dtype == torch.float32
    start = mean_gradient(locals_, locals_[0].initial()).norm()
    # float32 rounds x* by 6e-8 of its size, which the smoothness enlarges
    rounding = 1e-6 * constants.smoothness * float(constants.optimum.norm()) + 1e-7
    assert mean_gradient(locals_, constants.optimum).norm() < rounding
    assert start > 100 * rounding
    assert all(torch.equal(constants_of(k).optimum, constants.optimum) for k in locals_)


@convex
def test_the_loss_at_the_optimum_is_its_value_and_the_least(config: dict[str, Any]) -> None:
    local = nodes_of(config)[0]
    constants = constants_of(local)
    loss = local.evaluate(constants.optimum)["loss"]
    assert loss == pytest.approx(constants.optimum_value, rel=1e-6)
    rng = np.random.default_rng(1)
    for _ in range(10):
        away = torch.from_numpy(rng.standard_normal(local.dim)).float()
        away *= 0.1 / away.norm()
        gain = local.evaluate(constants.optimum + away)["loss"] - constants.optimum_value
        # mu/2 |z|^2 <= f(x* + z) - f* <= L/2 |z|^2
        assert gain >= constants.mu / 2 * 0.01 * (1 - 1e-3)
        assert gain <= constants.smoothness / 2 * 0.01 * (1 + 1e-3)


@pytest.mark.parametrize("config", CONVEX[:3], ids=["dense", "diagonal", "rows"])
def test_suboptimality_and_distance(config: dict[str, Any]) -> None:
    local = nodes_of(config)[0]
    constants = constants_of(local)
    x = constants.optimum + 0.25
    measured = local.evaluate(x)
    gap = measured["loss"] - constants.optimum_value
    assert measured["suboptimality"] == pytest.approx(gap, rel=1e-6)
    assert measured["distance"] == pytest.approx(local.dim * 0.25**2, rel=1e-5)
    assert local.evaluate(constants.optimum)["suboptimality"] < 1e-10
    assert local.evaluate(constants.optimum)["distance"] < 1e-10


def test_gradient_descent_ends_at_the_optimum() -> None:
    for config in CONVEX[:4]:
        locals_ = nodes_of(config)
        constants = constants_of(locals_[0])
        kappa = constants.smoothness / constants.mu
        x = locals_[0].initial()
        distance = float((x - constants.optimum).norm())
        steps = 300
        for _ in range(steps):
            x = x - mean_gradient(locals_, x).float() / constants.smoothness
        # |x_t - x*|^2 <= (1 - mu/L)^t |x_0 - x*|^2 (Nesterov 2004, theorem 2.1.15 with h = 1/L)
        bound = (1 - 1 / kappa) ** (steps / 2) * distance
        assert float((x - constants.optimum).norm()) <= bound + 1e-5 * distance


# -- heterogeneity -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [
        {"kind": "quadratic", "heterogeneity": 0.0},
        {"kind": "quadratic", "heterogeneity": 0.0, "structure": "diagonal"},
        {"kind": "least_squares", "heterogeneity": 0.0, "noise": 0.0},
    ],
    ids=["dense", "diagonal", "rows"],
)
def test_without_heterogeneity_every_node_has_the_same_minimiser(config: dict[str, Any]) -> None:
    locals_ = nodes_of(config)
    constants = constants_of(locals_[0])
    assert constants.optimum.norm() > 1
    for local in locals_:
        gradient = local.gradient(constants.optimum, np.random.default_rng(0))
        assert gradient.norm() < 1e-5 * constants.smoothness
    assert constants.optimum_value < 1e-10


@pytest.mark.parametrize("kind", ["quadratic", "least_squares"])
def test_more_heterogeneity_means_larger_gradients_at_the_optimum(kind: str) -> None:
    sizes = []
    for heterogeneity in (0.0, 0.5, 1.0, 4.0):
        locals_ = nodes_of({"kind": kind, "heterogeneity": heterogeneity})
        optimum = constants_of(locals_[0]).optimum
        gradients = [local.gradient(optimum, np.random.default_rng(0)) for local in locals_]
        sizes.append(float(torch.stack(gradients).norm()))
    assert sizes == sorted(sizes)
    assert sizes[-1] > 10 * sizes[1] / 2


def test_identical_quadratics_are_identical() -> None:
    locals_ = nodes_of({"kind": "quadratic", "heterogeneity": 0.0})
    x = torch.ones(20)
    gradients = [local.gradient(x, np.random.default_rng(0)) for local in locals_]
    assert all(torch.equal(gradient, gradients[0]) for gradient in gradients)


# -- single problems -----------------------------------------------------------------------------


def test_quadratic_noise_has_the_deviation_that_was_asked_for() -> None:
    quiet, noisy = (
        Problem.parse({"kind": "quadratic", "noise": noise}).local(0, 2, 0) for noise in (0.0, 0.5)
    )
    x, rng = quiet.initial(), np.random.default_rng(0)
    exact = quiet.gradient(x, rng)
    errors = torch.stack([noisy.gradient(x, rng) - exact for _ in range(500)])
    # 10,000 draws: the mean has deviation 0.005, the deviation one of 0.0035
    assert abs(float(errors.mean())) < 0.025
    assert float(errors.std()) == pytest.approx(0.5, abs=0.018)


def test_a_thousand_large_diagonal_quadratics_are_light() -> None:
    config = {"kind": "quadratic", "dim": 1000, "structure": "diagonal"}
    locals_ = nodes_of(config, nodes=1000)
    held = {
        value.data_ptr(): value.nbytes
        for local in locals_
        for value in vars(local).values()
        if isinstance(value, torch.Tensor)
    }
    assert sum(held.values()) == 1000 * 2 * 1000 * 8  # eigenvalues and centre, once per node


def test_dense_quadratics_share_their_rotation() -> None:
    first, second = (vars(local) for local in nodes_of({"kind": "quadratic"}, nodes=2))
    assert first["_rotation"] is second["_rotation"]
    identity = first["_rotation"] @ first["_rotation"].T
    torch.testing.assert_close(identity, torch.eye(20, dtype=torch.float64))


def test_least_squares_without_enough_rows_has_no_constants() -> None:
    config = {"kind": "least_squares", "dim": 20, "samples": 3}
    # seven of them have an average that is strongly convex, but none is by itself
    assert nodes_of(config, nodes=7)[0].constants is None
    assert nodes_of(config | {"samples": 20}, nodes=7)[0].constants is not None
    local = nodes_of(config, nodes=6)[0]
    assert local.evaluate(local.initial())["suboptimality"] > 0


def test_logistic_regression_without_regulariser_has_no_constants() -> None:
    assert (
        Problem.parse({"kind": "logistic_regression", "l2": 0.0}).local(0, 2, 0).constants is None
    )


def test_logistic_loss_is_the_plain_average_over_nodes_of_unequal_size() -> None:
    config = CONVEX[3]
    locals_ = nodes_of(config)
    sizes = [local.samples for local in locals_]
    assert max(sizes) > 2 * min(sizes)
    x = torch.linspace(-1, 1, locals_[0].dim)
    losses = []
    for local in locals_:
        assert isinstance(local, LocalSupervised)
        data, rows = local.data, local.rows
        logits = data.features[rows].double().numpy() @ x[:-1].double().numpy() + float(x[-1])
        signs = 2 * data.targets[rows].numpy() - 1
        losses.append(np.logaddexp(0, -signs * logits).mean())
    expected = np.mean(losses) + 0.01 / 2 * float(x.double() @ x.double())
    assert locals_[0].evaluate(x)["loss"] == pytest.approx(expected, rel=1e-10)
