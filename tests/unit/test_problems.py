"""Supervised problems: sharing out, batches, own problems, bits that agree between processes."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
import textwrap
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tidings.api import Dataset, LocalProblem, Problem
from tidings.errors import ConfigError
from tidings.problems.batches import Batches
from tidings.problems.flat import FlatModule
from tidings.problems.seeding import build_module, generator
from tidings.problems.supervised import SupervisedProblem

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


# -- a problem of one's own ----------------------------------------------------------------------


def docstring_example() -> str:
    text = inspect.getdoc(SupervisedProblem) or ""
    code = text.split("::\n\n", 2)[1].split("\n\nThe module's own")[0]
    return textwrap.dedent(code)


def train(local: LocalProblem, steps: int, lr: float) -> torch.Tensor:
    x, stream = local.initial(), rng()
    for _ in range(steps):
        x = x - lr * local.gradient(x, stream)
    return x


def test_the_example_in_the_docstring_is_short_and_learns(tmp_path: Path) -> None:
    file = tmp_path / "rings.py"
    file.write_text(docstring_example())
    assert len([line for line in docstring_example().splitlines() if line.strip()]) <= 25
    config = {"kind": f"{file}:Rings", "hidden": 8, "batch_size": 16, "partition": "dirichlet"}
    problem = Problem.parse(config)
    local = problem.local(0, 1, seed=0)
    assert (local.dim, local.samples) == (2 * 8 + 8 + 8 * 2 + 2, 800)
    before, after = (
        local.evaluate(x)["accuracy"] for x in (local.initial(), train(local, 600, 0.5))
    )
    assert before < 0.8
    assert after > 0.95
    with pytest.raises(ConfigError, match="did you mean 'hidden'"):
        Problem.parse({"kind": f"{file}:Rings", "hiden": 8})


@dataclass(frozen=True)
class Line(SupervisedProblem):
    """Regression, with parameters that cannot be hashed."""

    slopes: list[float]
    layer: str = "linear"
    dtype: str = "float32"

    def data(self) -> tuple[Dataset, Dataset]:
        features = rng().standard_normal((60, len(self.slopes))).astype(self.dtype)
        targets = (features @ np.array(self.slopes)).astype(np.float32)
        data = Dataset(features, targets)
        return data.take(np.arange(40)), data.take(np.arange(40, 60))

    def module(self) -> torch.nn.Module:
        linear = torch.nn.Linear(len(self.slopes), 1)
        extra = {
            "linear": [],
            "batch norm": [torch.nn.BatchNorm1d(1)],
            "dropout": [torch.nn.Dropout(0.5)],
            "no dropout": [torch.nn.Dropout(0.0)],
        }
        return torch.nn.Sequential(linear, *extra[self.layer])


def test_regression_has_a_loss_and_no_accuracy() -> None:
    problem = Line(slopes=[2.0, -1.0], layer="no dropout", batch_size=None)
    local = problem.local(0, 1, 0)
    x = train(local, 100, 0.2)
    assert set(local.evaluate(x)) == {"loss"}
    assert local.evaluate(x)["loss"] < 1e-8
    torch.testing.assert_close(x, torch.tensor([2.0, -1.0, 0.0]), atol=1e-4, rtol=0)


def test_two_problems_of_one_class_do_not_share_their_data() -> None:
    narrow, wide = Line(slopes=[1.0]), Line(slopes=[1.0, 2.0, 3.0])
    assert narrow.local(0, 2, 0).dim == 2
    assert wide.local(0, 2, 0).dim == 4


def test_l2_adds_its_gradient() -> None:
    x = torch.tensor([1.0, 2.0, 3.0])
    plain, ridge = (
        Line(slopes=[2.0, -1.0], batch_size=None, l2=l2).local(0, 1, 0).gradient(x, rng())
        for l2 in (0.0, 0.5)
    )
    torch.testing.assert_close(ridge, plain + 0.5 * x)


@pytest.mark.parametrize("layer", ["batch norm", "dropout"])
def test_layers_with_a_life_of_their_own_are_refused(layer: str) -> None:
    with pytest.raises(ValueError, match=r"layer '1' .* use GroupNorm or LayerNorm"):
        Line(slopes=[1.0], layer=layer).local(0, 1, 0)


def test_wrong_dtypes_are_named() -> None:
    with pytest.raises(ValueError, match="training features must be float32 or int64, not float64"):
        Line(slopes=[1.0], dtype="float64").local(0, 1, 0)


def test_a_node_without_samples_is_an_error() -> None:
    with pytest.raises(ValueError, match="41 nodes needs 41 samples, there are 40"):
        Line(slopes=[1.0]).local(0, 41, 0)


OWN_PARTITIONS = """
import numpy as np
from dataclasses import dataclass
from tidings.api import Partition

@dataclass(frozen=True)
class Own(Partition):
    how: str

    def split(self, data, nodes, rng):
        everything = np.arange(len(data))
        if self.how == "empty":
            return [everything, everything[:0]]
        return [everything, everything[:5]]
"""


@pytest.mark.parametrize(
    ("how", "words"), [("empty", "leaves node 1 none"), ("twice", "every sample exactly once")]
)
def test_faults_in_a_partition_of_ones_own_are_found(tmp_path: Path, how: str, words: str) -> None:
    file = tmp_path / "own.py"
    file.write_text(OWN_PARTITIONS)
    problem = Problem.parse({"kind": "digits", "partition": {"kind": f"{file}:Own", "how": how}})
    with pytest.raises(ValueError, match=words):
        problem.local(0, 2, 0)


@pytest.mark.parametrize(
    "config",
    [
        {"kind": "digits", "batch_size": 0},
        {"kind": "digits", "hidden": 0},
        {"kind": "digits", "model": "vgg"},
        {"kind": "digits", "l2": -1.0},
        {"kind": "char_transformer", "width": 65},
        {"kind": "char_transformer", "layers": 0},
        {"kind": "least_squares", "batch_size": -3},
        {"kind": "least_squares", "noise": float("nan")},
        {"kind": "quadratic", "dim": 1},
        {"kind": "quadratic", "mu": 2.0, "smoothness": 1.0},
        {"kind": "quadratic", "heterogeneity": -1.0},
    ],
)
def test_impossible_parameters(config: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Problem.parse(config)


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
