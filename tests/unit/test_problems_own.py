"""Problems of one's own: the docstring's example, what is refused, and whose fault it is."""

from __future__ import annotations

import inspect
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tidings.api import Dataset, LocalProblem, Problem
from tidings.errors import ConfigError
from tidings.problems.supervised import SupervisedProblem

pytestmark = pytest.mark.unit


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


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
