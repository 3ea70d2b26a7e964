"""Reading experiment files."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from tidings.errors import UserError
from tidings.registry import base_directory
from tidings_coordinator.experiment.errors import ExperimentError
from tidings_coordinator.experiment.locator import Locator, label_of
from tidings_coordinator.experiment.messages import explain, shown
from tidings_coordinator.experiment.model import Experiment
from tidings_coordinator.experiment.overrides import Override, expand
from tidings_coordinator.experiment.yaml_loader import Path, YamlError, parse

__all__ = ["expand", "load", "loads"]


def load(path: str | pathlib.Path, overrides: Sequence[str] = ()) -> Experiment:
    """Read the experiment file at ``path``, changed by ``overrides`` (``a.b=value``).

    Raises ExperimentError with everything that is wrong, one line each.
    """
    file = pathlib.Path(path)
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ExperimentError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ExperimentError(f"{path}: is not text in UTF-8: {error.reason}") from error
    before = base_directory.set(file.parent)
    try:
        return loads(text, str(path), overrides)
    finally:
        base_directory.reset(before)


def loads(text: str, name: str = "experiment.yaml", overrides: Sequence[str] = ()) -> Experiment:
    """Read an experiment from ``text``; ``name`` stands for the file in errors.

    The name's stem is the experiment's name, where it does not give one itself.
    """
    try:
        document = parse(text)
    except YamlError as error:
        label = f"{label_of(error.path)}: " if error.path else ""
        raise ExperimentError(f"{name}:{error.line}: {label}{error.message}") from error
    data = document.value if document.value is not None else {}
    if not isinstance(data, dict):
        raise ExperimentError(f"{name}: expected keys with values, got {shown(data)}")
    changed: dict[Path, Override] = {}
    for override in map(Override.parse, overrides):
        path = override.apply(data)
        changed = {p: o for p, o in changed.items() if p[: len(path)] != path} | {path: override}
    data.setdefault("name", pathlib.Path(name).stem)
    return _validate(data, Locator(name, document, changed))


def _validate(data: dict[str, Any], locator: Locator) -> Experiment:
    try:
        experiment = Experiment.model_validate(data)
    except ValidationError as error:
        wrong = [
            (locator.line_number(path) or 0, locator.describe(path, message))
            for path, message in explain(error, Experiment)
        ]
        lines = dict.fromkeys(line for _, line in sorted(wrong, key=lambda found: found[0]))
        raise ExperimentError("\n".join(lines)) from error
    except UserError as error:
        raise ExperimentError(f"{locator.name}: {error}") from error
    return experiment.written_at(locator)
