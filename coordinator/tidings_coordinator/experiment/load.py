"""Reading experiment files."""

from __future__ import annotations

import pathlib
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from pydantic import ValidationError

from tidings.errors import UserError, shown
from tidings.registry import base_directory
from tidings_coordinator.checks.base import Check
from tidings_coordinator.experiment.errors import ExperimentError
from tidings_coordinator.experiment.expectations import Expectations
from tidings_coordinator.experiment.locator import Locator, label_of
from tidings_coordinator.experiment.messages import explain
from tidings_coordinator.experiment.model import Experiment
from tidings_coordinator.experiment.overrides import Override, expand
from tidings_coordinator.experiment.section import Section
from tidings_coordinator.experiment.selectors import Resolver
from tidings_coordinator.experiment.yaml_loader import Document, Path, YamlError, parse

__all__ = ["expand", "load", "load_expectations", "loads"]


def load(path: str | pathlib.Path, overrides: Sequence[str] = ()) -> Experiment:
    """Read the experiment file at ``path``, changed by ``overrides`` (``a.b=value``).

    Raises ExperimentError with everything that is wrong, one line each.
    """
    text = _text(path)
    before = base_directory.set(pathlib.Path(path).parent)
    try:
        return loads(text, str(path), overrides)
    finally:
        base_directory.reset(before)


def loads(text: str, name: str = "experiment.yaml", overrides: Sequence[str] = ()) -> Experiment:
    """Read an experiment from ``text``; ``name`` stands for the file in errors.

    The name's stem is the experiment's name, where it does not give one itself.
    """
    document = _document(text, name)
    data = document.value
    changed: dict[Path, Override] = {}
    for override in map(Override.parse, overrides):
        if (path := override.apply(data)) is None:
            continue
        changed = {p: o for p, o in changed.items() if p[: len(path)] != path} | {path: override}
    data.setdefault("name", pathlib.Path(name).stem)
    locator = Locator(name, document, changed)
    experiment = _validate(data, locator, Experiment)
    for path in document.empty:
        if path not in changed:
            raise ExperimentError(
                locator.describe(path, "nothing is given here; leave the key out")
            )
    return experiment.written_at(locator)


def load_expectations(
    path: str | pathlib.Path, resolver: Resolver, events: Collection[str]
) -> tuple[Check, ...]:
    """The ``expect`` section of any file that has one, an experiment or not.

    Raises ExperimentError with everything that is wrong with it.
    """
    document = _document(_text(path), str(path))
    if "expect" not in document.value:
        raise ExperimentError(f"{path}: there is no 'expect' in it")
    data = {"expect": document.value["expect"]}
    context = {"resolver": resolver, "events": events}
    return _validate(data, Locator(str(path), document), Expectations, context).expect


def _text(path: str | pathlib.Path) -> str:
    try:
        return pathlib.Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ExperimentError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ExperimentError(f"{path}: is not text in UTF-8: {error.reason}") from error


def _document(text: str, name: str) -> Document:
    """What a file says: keys with values, possibly none."""
    try:
        document = parse(text)
    except YamlError as error:
        label = f"{label_of(error.path)}: " if error.path else ""
        raise ExperimentError(f"{name}:{error.line}: {label}{error.message}") from error
    if document.value is None:
        return replace(document, value={})
    if not isinstance(document.value, dict):
        raise ExperimentError(f"{name}: expected keys with values, got {shown(document.value)}")
    return document


S = TypeVar("S", bound=Section)


def _validate(
    data: dict[str, Any], locator: Locator, model: type[S], context: dict[str, Any] | None = None
) -> S:
    try:
        return model.model_validate(data, context=context)
    except ValidationError as error:
        wrong = [
            (locator.line_number(path) or 0, locator.describe(path, message))
            for path, message in explain(error, model)
        ]
        lines = dict.fromkeys(line for _, line in sorted(wrong, key=lambda found: found[0]))
        raise ExperimentError("\n".join(lines)) from error
    except UserError as error:
        raise ExperimentError(f"{locator.name}: {error}") from error
