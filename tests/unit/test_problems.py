"""Supervised problems: sharing out, batches, own problems, bits that agree between processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tidings.api import Problem
from tidings.problems.batches import Batches
from tidings.problems.flat import FlatModule
from tidings.problems.seeding import build_module, generator

pytestmark = pytest.mark.unit

EVERY: list[dict[str, Any]] = [
    {"kind": "quadratic", "noise": 0.1},
    {"kind": "quadratic", "structure": "diagonal"},
    {"kind": "least_squares", "batch_size": 8},
    {"kind": "logistic_regression"},
    {"kind": "logistic_regression", "dataset": "digits"},
    {"kind": "digits", "model": "mlp"},
    {"kind": "digits", "model": "cnn", "partition": {"kind": "feature_shift", "rotation": 20.0}},
    {"kind": "mnist_5k", "model": "mlp"},
    {"kind": "mnist_5k", "model": "cnn", "partition": "dirichlet"},
    {"kind": "char_transformer", "context": 16, "width": 32, "partition": "by_group"},
]
every_problem = pytest.mark.parametrize(
    "config", EVERY, ids=lambda c: "-".join(str(v) for v in c.values() if isinstance(v, str))
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# -- the contract, for every problem -------------------------------------------------------------


@every_problem
def test_shapes_types_and_the_common_start(config: dict[str, Any]) -> None:
    problem = Problem.parse(config)
    assert Problem.parse(problem.config()) == problem
    first, second = problem.local(0, 3, seed=5), problem.local(2, 3, seed=5)
    x = first.initial()
    assert torch.equal(x, second.initial())
    x += 1
    assert not torch.equal(x, first.initial())
    x -= 1
    before = x.clone()
    gradient = first.gradient(x, rng())
    assert x.shape == gradient.shape == (first.dim,)
    assert x.dtype == gradient.dtype == torch.float32
    assert torch.equal(x, before)
    assert not gradient.requires_grad
    assert first.samples >= 1
    measured = first.evaluate(x)
    assert measured == second.evaluate(x)
    assert np.isfinite(measured["loss"])
    assert 0 <= measured.get("accuracy", 0) <= 1
    assert all(type(value) is float for value in measured.values())


@every_problem
def test_equal_generators_and_fresh_shares_give_equal_gradients(config: dict[str, Any]) -> None:
    problem = Problem.parse(config)
    x = problem.local(1, 3, seed=5).initial()
    runs = []
    for _ in range(2):
        local, stream = problem.local(1, 3, seed=5), rng(7)
        runs.append([local.gradient(x + 0.01 * k, stream) for k in range(3)])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))
    other = problem.local(2, 3, seed=5).gradient(x, rng(7))
    assert not torch.equal(other, runs[0][0])


@every_problem
def test_a_step_along_the_gradient_goes_down(config: dict[str, Any]) -> None:
    problem = Problem.parse(config)
    if "batch_size" in problem.config():
        problem = Problem.parse(config | {"batch_size": 64})
    locals_ = [problem.local(node, 3, seed=1) for node in range(3)]
    x = locals_[0].initial()
    before = locals_[0].evaluate(x)["loss"]
    step = torch.stack([local.gradient(x, rng()) for local in locals_]).mean(dim=0)
    assert locals_[0].evaluate(x - 0.02 * step)["loss"] < before


DIGEST = """
import hashlib, json, sys
import numpy as np, torch
from tidings.api import Problem
torch.set_num_threads(1)
configs, disturb = json.loads(sys.argv[1]), sys.argv[2] == "disturbed"
digest = hashlib.sha256()
for config in configs:
    problem = Problem.parse(config)
    if disturb:
        torch.rand(7), problem.local(1, 3, 5).gradient(problem.local(1, 3, 5).initial(),
                                                       np.random.default_rng(1))
        junk = [np.empty(k) for k in range(1, 999, 13)]
    local, rng = problem.local(0, 3, 5), np.random.default_rng(3)
    x = local.initial()
    for _ in range(3):
        if disturb:
            x = torch.cat([torch.zeros(3), x])[3:]  # the same numbers, aligned otherwise
        x = x - 0.05 * local.gradient(x, rng)
        digest.update(x.numpy().tobytes())
    digest.update(json.dumps(dict(local.evaluate(x))).encode())
print(digest.hexdigest())
"""


def test_two_processes_compute_the_same_bits() -> None:
    running = [
        subprocess.Popen(
            [sys.executable, "-c", DIGEST, json.dumps(EVERY), how],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for how in ("plain", "disturbed")
    ]
    digests = [process.communicate()[0].strip() for process in running]
    assert len(digests[0]) == 64
    assert digests[0] == digests[1]


def test_evaluation_in_another_thread_disturbs_no_gradient() -> None:
    problem = Problem.parse("digits")
    local, x = problem.local(0, 2, 1), problem.local(0, 2, 1).initial()
    expected_gradients = [problem.local(0, 2, 1).gradient(x, rng(k)) for k in range(200)]
    expected = local.evaluate(x * 3)
    stop, wrong = threading.Event(), []

    def evaluate() -> None:
        while not stop.is_set():
            if local.evaluate(x * 3) != expected:
                wrong.append(1)

    thread = threading.Thread(target=evaluate)
    thread.start()
    try:
        got = [problem.local(0, 2, 1).gradient(x, rng(k)) for k in range(200)]
    finally:
        stop.set()
        thread.join()
    assert not wrong
    assert all(torch.equal(a, b) for a, b in zip(got, expected_gradients, strict=True))


def test_global_torch_randomness_is_neither_used_nor_changed() -> None:
    state = torch.random.get_rng_state()
    first = build_module(lambda: torch.nn.Linear(3, 2), 4)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(5)
    second = build_module(lambda: torch.nn.Linear(3, 2), 4)
    other = build_module(lambda: torch.nn.Linear(3, 2), 5)
    assert torch.equal(first.weight, second.weight)
    assert not torch.equal(first.weight, other.weight)


def test_streams_differ_by_seed_and_purpose_and_are_the_same_everywhere() -> None:
    purposes: list[tuple[Any, ...]] = [(0,), (1,), (0, "a"), (0, "a", 1), (0, "a1"), (0, "a", "b")]
    draws = {int(generator(*purpose).integers(2**63)) for purpose in purposes}
    assert len(draws) == len(purposes)
    assert generator(1, "a", 2).integers(2**63) == generator(1, "a", 2).integers(2**63)


def test_a_thousand_nodes_share_one_data_set() -> None:
    problem = Problem.parse("mnist_5k")
    locals_ = [problem.local(node, 1000, 0) for node in range(1000)]
    assert [local.samples for local in locals_] == [4] * 1000
    tensors = {local.data.features.data_ptr() for local in locals_}  # type: ignore[attr-defined]
    assert len(tensors) == 1
    x = locals_[0].initial()
    for local in locals_[:50]:
        local.gradient(x, rng())
    assert len({id(local.common.worker()) for local in locals_}) == 1  # type: ignore[attr-defined]


def test_feature_shift_reaches_gradients_and_the_test_set() -> None:
    plain = Problem.parse({"kind": "digits", "batch_size": None})
    config = {"kind": "feature_shift", "scale": 0.0, "offset": 0.0}
    same = Problem.parse({"kind": "digits", "batch_size": None, "partition": config})
    shifted = Problem.parse(
        {"kind": "digits", "batch_size": None, "partition": config | {"offset": 1.0}}
    )
    x = plain.local(0, 4, 3).initial()
    a, b, c = (problem.local(1, 4, 3) for problem in (plain, same, shifted))
    torch.testing.assert_close(a.gradient(x, rng()), b.gradient(x, rng()))
    assert a.evaluate(x)["loss"] == pytest.approx(b.evaluate(x)["loss"], rel=1e-5)
    assert not torch.allclose(a.gradient(x, rng()), c.gradient(x, rng()), rtol=0.1)
    assert a.evaluate(x)["loss"] != pytest.approx(c.evaluate(x)["loss"], rel=1e-3)
    assert c.evaluate(x) == shifted.local(3, 4, 3).evaluate(x)


# -- batches -------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(samples=st.integers(1, 40), size=st.integers(1, 50), seed=st.integers(0, 99))
def test_an_epoch_holds_every_sample_once(samples: int, size: int, seed: int) -> None:
    batches, stream = Batches(samples, size, "epochs"), rng(seed)
    size = min(size, samples)
    for _ in range(3):
        drawn = [batches.draw(stream) for _ in range(-(-samples // size))]
        assert [len(batch) for batch in drawn[:-1]] == [size] * (len(drawn) - 1)
        np.testing.assert_array_equal(np.sort(np.concatenate(drawn)), np.arange(samples))


def test_epochs_are_reshuffled() -> None:
    batches, stream = Batches(100, 100 // 2, "epochs"), rng()
    epochs = [np.concatenate([batches.draw(stream), batches.draw(stream)]) for _ in range(2)]
    assert not np.array_equal(*epochs)


def test_independent_batches_depend_on_the_generator_alone_and_cover_evenly() -> None:
    batches = Batches(10, 3, "independent")
    np.testing.assert_array_equal(batches.draw(rng(1)), batches.draw(rng(1)))
    stream = rng(2)
    drawn = [batches.draw(stream) for _ in range(3000)]
    assert all(len(np.unique(batch)) == 3 for batch in drawn)
    counts = np.bincount(np.concatenate(drawn), minlength=10)
    # 900 expected each; the standard deviation is sqrt(3000 * 0.3 * 0.7) = 25
    assert np.abs(counts - 900).max() < 5 * 25


@pytest.mark.parametrize("kind", ["digits", "least_squares", "logistic_regression"])
def test_the_mean_over_an_epoch_is_the_full_gradient(kind: str) -> None:
    full = Problem.parse({"kind": kind, "batch_size": None}).local(0, 7, 2)
    size = {"digits": 41, "least_squares": 7, "logistic_regression": 9}[kind]
    stochastic = Problem.parse({"kind": kind, "batch_size": size}).local(0, 7, 2)
    assert full.samples % size  # the last batch is smaller, so weights matter
    x = full.initial() + 0.1
    starts = range(0, full.samples, size)
    weights = [min(size, full.samples - start) / full.samples for start in starts]
    stream = rng()
    mean = sum(weight * stochastic.gradient(x, stream) for weight in weights)
    torch.testing.assert_close(mean, full.gradient(x, rng()), rtol=1e-4, atol=1e-6)


# -- the flat vector -----------------------------------------------------------------------------


def test_flat_vector_round_trip_and_unused_parameters() -> None:
    class Partly(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = torch.nn.Linear(2, 2), torch.nn.Linear(2, 1)
            self.frozen = torch.nn.Parameter(torch.ones(3), requires_grad=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.used(x)
            return out

    flat = FlatModule(Partly())
    assert flat.dim == 6 + 3
    x = torch.arange(9.0)
    flat.write(x)
    assert torch.equal(flat.read(), x)
    x.zero_()
    assert flat.read()[8] == 8  # a copy, not a view
    gradient = flat.gradient(flat.module(torch.ones(1, 2)).sum())
    assert torch.equal(gradient, torch.tensor([1.0, 1, 1, 1, 1, 1, 0, 0, 0]))
    with pytest.raises(ValueError, match="no trainable parameters"):
        FlatModule(torch.nn.ReLU())
