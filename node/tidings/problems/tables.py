"""Data sets from files on disk: LIBSVM's sparse text format and CSV."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

#: the features are held densely; more elements than this (4 GB) is surely not what was meant
_MOST_ELEMENTS = 2**30


def read_table(file: Path, target: str | None) -> tuple[np.ndarray, np.ndarray]:
    """(N, D) float32 features and (N,) int64 classes of a ``.csv`` file, else of a LIBSVM file.

    Classes are numbered in the sorted order of their labels, so -1, +1 become 0, 1. ``target`` is
    the CSV column that holds the label, the last one by default. ValueError that names file and
    line for what does not parse.
    """
    if not file.is_file():
        raise ValueError(f"there is no file {file}")
    is_csv = file.suffix.lower() == ".csv"
    features, labels = _read_csv(file, target) if is_csv else _read_libsvm(file)
    if features.size == 0:
        raise ValueError(f"{file} holds no samples with features")
    names, classes = np.unique(np.array(labels), return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"{file} has a single class, {names[0]}")
    return features, classes.astype(np.int64)


def _read_libsvm(file: Path) -> tuple[np.ndarray, list[float]]:
    """Lines of ``label index:value ...`` with ascending indices from 1; ``#`` starts a comment."""
    labels: list[float] = []
    rows: list[int] = []
    columns: list[int] = []
    values: list[float] = []
    for number, line in enumerate(_lines(file), start=1):
        label, *pairs = line.partition("#")[0].split() or [""]
        if not label:
            continue
        labels.append(_number(label, f"{file}:{number}: label"))
        last = 0
        for pair in pairs:
            index, _, value = pair.partition(":")
            if not index.isdecimal() or int(index) <= last:
                raise ValueError(
                    f"{file}:{number}: '{pair}' is not index:value with an index above {last}"
                )
            last = int(index)
            rows.append(len(labels) - 1)
            columns.append(last - 1)
            values.append(_number(value, f"{file}:{number}: feature {index}"))
    width = max(columns, default=-1) + 1
    if len(labels) * width > _MOST_ELEMENTS:
        raise ValueError(f"{file}: {len(labels)} x {width} features are too many to hold densely")
    features = np.zeros((len(labels), width), np.float32)
    features[rows, columns] = values
    return features, labels


def _read_csv(file: Path, target: str | None) -> tuple[np.ndarray, list[str]]:
    """A header, then rows of numbers and one label, which may be any text."""
    reader = csv.reader(_lines(file))
    header = [name.strip() for name in next(reader, [])]
    if target is not None and target not in header:
        raise ValueError(f"{file}:1: no column '{target}' among {', '.join(header)}")
    place = len(header) - 1 if target is None else header.index(target)
    labels: list[str] = []
    rows: list[list[float]] = []
    for row in reader:
        if not row:
            continue
        where = f"{file}:{reader.line_num}"
        if len(row) != len(header):
            raise ValueError(f"{where}: {len(row)} fields, the header has {len(header)}")
        labels.append(row.pop(place).strip())
        names = header[:place] + header[place + 1 :]
        rows.append(
            [_number(text, f"{where}: {name}") for text, name in zip(row, names, strict=True)]
        )
    width = max(len(header) - 1, 0)
    return np.array(rows, np.float32).reshape(len(rows), width), labels


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text("utf-8-sig").splitlines(keepends=True)
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 text: {error}") from error


def _number(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{where}: '{text}' is not a number") from None
    if not np.isfinite(value):
        raise ValueError(f"{where}: '{text}' is not finite")
    return value
