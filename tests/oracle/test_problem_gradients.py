"""Gradients and constants against closed forms, eigenvalues and finite differences in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.utils import vector_to_parameters

from tidings.api import LocalProblem, Problem
from tidings.problems.supervised import LocalSupervised, SupervisedProblem

pytestmark = pytest.mark.oracle


def nodes_of(config: object, nodes: int, seed: int = 3) -> list[LocalProblem]:
    problem = Problem.parse(config)
    return [problem.local(node, nodes, seed) for node in range(nodes)]


def gradient(local: LocalProblem, x: torch.Tensor) -> np.ndarray:
    return local.gradient(x, np.random.default_rng(0)).double().numpy()


def hessian(local: LocalProblem) -> np.ndarray:
    """Of a quadratic function, exactly: column j is g(e_j) - g(0)."""
    origin = gradient(local, torch.zeros(local.dim))
    return np.stack([gradient(local, column) - origin for column in torch.eye(local.dim)], axis=1)


@pytest.mark.parametrize("structure", ["dense", "diagonal"])
@pytest.mark.parametrize("heterogeneity", [0.0, 0.4, 2.0])
def test_quadratics_have_the_eigenvalues_that_were_asked_for(
    structure: str, heterogeneity: float
) -> None:
    config = {
        "kind": "quadratic",
        "dim": 10,
        "mu": 0.3,
        "smoothness": 7.0,
        "structure": structure,
        "heterogeneity": heterogeneity,
    }
    locals_ = nodes_of(config, 5)
    matrices = [hessian(local) for local in locals_]
    for matrix in [*matrices, np.mean(matrices, axis=0)]:
        np.testing.assert_allclose(matrix, matrix.T, atol=1e-5)
        eigenvalues = np.linalg.eigvalsh(matrix)
        np.testing.assert_allclose(eigenvalues[[0, -1]], [0.3, 7.0], atol=1e-4)
    assert (np.abs(matrices[0] - matrices[1]).max() > 0.1) == (heterogeneity > 0)
    off_diagonal = matrices[0] - np.diag(np.diag(matrices[0]))
    assert (np.abs(off_diagonal).max() > 0.1) == (structure == "dense")
    constants = locals_[0].constants
    assert constants is not None
    assert (constants.mu, constants.smoothness) == (0.3, 7.0)
    # x* = (sum A_i)^-1 sum A_i b_i, and g_i(0) = -A_i b_i
    pulls = -np.mean([gradient(local, torch.zeros(10)) for local in locals_], axis=0)
    optimum = np.linalg.solve(np.mean(matrices, axis=0), pulls)
    np.testing.assert_allclose(constants.optimum.numpy(), optimum, atol=1e-4)
    values = []
    for matrix, local in zip(matrices, locals_, strict=True):
        away = optimum - np.linalg.solve(matrix, -gradient(local, torch.zeros(10)))
        values.append(0.5 * away @ matrix @ away)
    assert constants.optimum_value == pytest.approx(np.mean(values), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(
    "config",
    [
        {"kind": "quadratic", "dim": 8},
        {"kind": "quadratic", "dim": 8, "structure": "diagonal"},
        {"kind": "least_squares", "dim": 8},
        {"kind": "logistic_regression", "batch_size": None, "partition": "dirichlet"},
        {"kind": "logistic_regression", "batch_size": None, "dataset": "digits", "l2": 0.1},
    ],
    ids=["dense", "diagonal", "rows", "binary", "multinomial"],
)
def test_the_mean_of_the_nodes_gradients_is_the_slope_of_the_loss(config: dict[str, Any]) -> None:
    locals_ = nodes_of(config, 4)
    rng = np.random.default_rng(1)
    x = torch.from_numpy(rng.standard_normal(locals_[0].dim) * 0.3)
    mean = np.mean([gradient(local, x.float()) for local in locals_], axis=0)
    x = x.float().double()  # evaluation in float64 takes float64 points as they are
    evaluate = Problem.parse(config).local(0, 4, 3).evaluate
    for _ in range(5):
        direction = torch.from_numpy(rng.standard_normal(len(x)))
        direction /= direction.norm()
        h = 1e-5
        if config["kind"] == "logistic_regression":
            ends = [_loss(locals_[0], x + sign * h * direction) for sign in (1, -1)]
        else:
            ends = [evaluate(x + sign * h * direction)["loss"] for sign in (1, -1)]
        slope = (ends[0] - ends[1]) / (2 * h)
        assert mean @ direction.numpy() == pytest.approx(slope, rel=1e-4, abs=1e-6)


def _loss(local: LocalProblem, x: torch.Tensor) -> float:
    """The training objective of logistic regression by plain numpy, averaged node by node."""
    assert isinstance(local, LocalSupervised)
    common, point = local.common, x.numpy()
    losses = []
    for rows in common.shares:
        a = common.train.features[rows].double().numpy().reshape(len(rows), -1)
        y = common.train.targets[rows].numpy()
        outputs = len(point) // (a.shape[1] + 1)
        logits = a @ point[:-outputs].reshape(outputs, -1).T + point[-outputs:]
        if outputs == 1:
            logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        losses.append(-np.log(p[np.arange(len(y)), y]).mean())
    return float(np.mean(losses) + common.problem.l2 / 2 * point @ point)


@pytest.mark.parametrize("dataset", ["breast_cancer", "digits"])
def test_logistic_curvature_lies_between_the_constants_and_nearly_meets_them(dataset: str) -> None:
    locals_ = nodes_of({"kind": "logistic_regression", "dataset": dataset, "l2": 0.05}, 2)
    constants = locals_[0].constants
    assert constants is not None
    assert isinstance(locals_[0], LocalSupervised)
    common = locals_[0].common
    largest = 0.0
    for rows in common.shares:
        a = common.train.features[rows].double()
        a = torch.cat([a, torch.ones(len(rows), 1)], dim=1).numpy()
        # at x = 0 the classes are equally likely: the curvature is p (1 - p) = 1/4 times A^T A / m,
        # or diag(p) - p p^T, whose largest eigenvalue is 1/C, in its Kronecker product with it
        factor = 0.25 if dataset == "breast_cancer" else 0.1
        largest = max(largest, factor * np.linalg.eigvalsh(a.T @ a / len(rows))[-1] + 0.05)
    assert constants.mu == 0.05
    if dataset == "breast_cancer":
        assert constants.smoothness == pytest.approx(largest, rel=1e-9)
    else:
        assert largest < constants.smoothness < 5.01 * largest


def test_the_least_squares_bed_has_the_constants_of_its_model() -> None:
    # L = 26.1 and 2.39, the least curvature of the average, were measured on one draw of this bed
    # (n=8, d=20, m=30, scales 1 + 0.3 i); medians over draws must be near, a draw is 20 % off.
    found = [nodes_of({"kind": "least_squares"}, 8, seed)[0].constants for seed in range(15)]
    smoothness = [constants.smoothness for constants in found if constants is not None]
    averages = (
        np.mean([hessian(local) for local in nodes_of({"kind": "least_squares"}, 8, seed)], axis=0)
        for seed in range(15)
    )
    least = [np.linalg.eigvalsh(average)[0] for average in averages]
    assert np.median(smoothness) == pytest.approx(26.1, rel=0.15)
    assert np.median(least) == pytest.approx(2.39, rel=0.15)
    assert min(smoothness) < 26.1 < max(smoothness)


def test_least_squares_constants_by_eigenvalues() -> None:
    locals_ = nodes_of({"kind": "least_squares", "dim": 6, "samples": 10}, 3)
    constants = locals_[0].constants
    assert constants is not None
    matrices = [hessian(local) for local in locals_]
    largest = max(np.linalg.eigvalsh(matrix)[-1] for matrix in matrices)
    assert constants.smoothness == pytest.approx(largest, rel=1e-5)
    smallest = min(np.linalg.eigvalsh(matrix)[0] for matrix in matrices)
    assert constants.mu == pytest.approx(smallest, rel=1e-4)


def test_the_mlp_gradient_by_hand() -> None:
    local = nodes_of({"kind": "digits", "hidden": 5, "batch_size": None, "l2": 0.02}, 3)[1]
    assert isinstance(local, LocalSupervised)
    rows = local.common.shares[1]
    a = local.common.train.features[rows].double().numpy().reshape(len(rows), 64)
    y = np.eye(10)[local.common.train.targets[rows].numpy()]
    x = local.initial().double().numpy()
    w1, b1 = x[:320].reshape(5, 64), x[320:325]
    w2, b2 = x[325:375].reshape(10, 5), x[375:385]
    hidden = np.maximum(a @ w1.T + b1, 0)
    logits = hidden @ w2.T + b2
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    up = (p - y) / len(y)
    down = (up @ w2) * (hidden > 0)
    parts = [down.T @ a, down.sum(axis=0), up.T @ hidden, up.sum(axis=0)]
    expected = np.concatenate([part.ravel() for part in parts]) + 0.02 * x
    np.testing.assert_allclose(gradient(local, local.initial()), expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    "config",
    [
        {"kind": "mnist_5k", "model": "mlp"},
        {"kind": "mnist_5k", "model": "cnn"},
        {"kind": "char_transformer"},
    ],
    ids=["mlp", "cnn", "transformer"],
)
def test_gradients_by_finite_differences(config: dict[str, Any]) -> None:
    problem = Problem.parse(config | {"batch_size": 5, "sampling": "independent"})
    assert isinstance(problem, SupervisedProblem)
    local = problem.local(0, 400 if config["kind"] == "mnist_5k" else 1, 3)
    assert isinstance(local, LocalSupervised)
    batch = np.random.default_rng(0).choice(local.samples, 5, replace=False)
    rows = local.rows[batch]
    features, targets = local.common.train.features[rows], local.common.train.targets[rows]
    module = problem.module().double()
    features = features.double() if features.is_floating_point() else features
    x = local.initial()
    computed = gradient(local, x)

    def loss(point: torch.Tensor) -> float:
        vector_to_parameters(point, module.parameters())
        with torch.no_grad():
            return float(problem.loss(module(features), targets))

    rng = np.random.default_rng(2)
    for _ in range(5):
        # along the gradient with some noise, so that the slope is not lost in rounding
        direction = computed / np.linalg.norm(computed) + 0.01 * rng.standard_normal(len(computed))
        step = torch.from_numpy(direction) * 1e-6
        slope = (loss(x.double() + step) - loss(x.double() - step)) / 2e-6
        assert computed @ direction == pytest.approx(slope, rel=1e-4)


@pytest.mark.parametrize(
    "config",
    [
        {"kind": "quadratic", "dim": 8, "noise": 0.5},
        {"kind": "least_squares", "dim": 8, "batch_size": 10},
        {"kind": "least_squares", "dim": 8, "batch_size": 10, "sampling": "independent"},
        {"kind": "logistic_regression", "dataset": "digits", "batch_size": 32},
        {"kind": "logistic_regression", "batch_size": 32, "sampling": "independent"},
    ],
    ids=["noise", "rows", "independent rows", "multinomial", "binary"],
)
def test_full_gradients_and_gradients_on_one_batch(config: dict[str, Any]) -> None:
    local = nodes_of(config, 2)[1]
    rng = np.random.default_rng(5)
    x, y = (0.3 * torch.from_numpy(rng.standard_normal(local.dim)).float() for _ in range(2))
    # an epoch of batches of equal size averages to the full gradient; noise averages out
    whole = nodes_of(config | ({"noise": 0.0} if "noise" in config else {"batch_size": None}), 2)[1]
    want = gradient(whole, x)
    np.testing.assert_allclose(local.full_gradient(x).numpy(), want, rtol=1e-5, atol=1e-5)
    # twice the same point on one batch: the same bits; the next batch is another
    at = local.on_batch(rng)
    first, other, again = (at(point) for point in (x, y, x))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, local.on_batch(rng)(x))
    # over an epoch each sample counts once
    if config.get("sampling") is None and "noise" not in config:
        assert local.batches == local.samples / config["batch_size"]
        fresh = nodes_of(config, 2)[1]
        sizes = np.diff([*range(0, local.samples, config["batch_size"]), local.samples])
        epoch = [fresh.on_batch(rng)(x).double().numpy() for _ in sizes]
        np.testing.assert_allclose(np.average(epoch, axis=0, weights=sizes), want, atol=1e-5)


# -- minimisers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "problem",
    [
        {"kind": "quadratic", "dim": 7},
        {"kind": "quadratic", "dim": 7, "structure": "diagonal"},
        {"kind": "least_squares", "dim": 7, "samples": 12},
        {"kind": "clustered_regression", "dim": 7, "samples": 12},
        {"kind": "wine_regression", "target": "proline"},
        {"kind": "logistic_regression", "l2": 0.05},
        {"kind": "logistic_regression", "dataset": "digits", "l2": 0.05, "partition": "iid"},
    ],
    ids=lambda problem: "-".join(map(str, problem.values())),
)
@pytest.mark.parametrize("ridge", [0.0, 0.7])
def test_a_minimizer_is_where_the_gradient_vanishes(problem: dict[str, Any], ridge: float) -> None:
    """grad f_i(x) + ridge x = linear."""
    share = Problem.parse(problem).local(1, 4, 3)
    assert share.has_minimizer
    linear = 0.1 * torch.from_numpy(np.random.default_rng(0).standard_normal(share.dim))
    x = share.minimizer(linear, ridge)
    assert x.dtype == torch.float64
    found = share.full_gradient(x.float()).double() + ridge * x
    torch.testing.assert_close(found, linear, atol=2e-5, rtol=0)


def test_where_there_is_no_minimizer_it_is_said() -> None:
    few = Problem.parse({"kind": "least_squares", "dim": 7, "samples": 3}).local(0, 2, 0)
    with pytest.raises(ValueError, match="3 rows of 7 features have no unique minimiser"):
        few.minimizer(torch.zeros(7).double(), 0.0)
    free = Problem.parse({"kind": "logistic_regression", "l2": 0.0}).local(0, 2, 0)
    with pytest.raises(ValueError, match="needs l2 > 0"):
        free.minimizer(torch.zeros(31).double(), 0.0)
    assert not Problem.parse({"kind": "digits", "hidden": 4}).local(0, 2, 0).has_minimizer
