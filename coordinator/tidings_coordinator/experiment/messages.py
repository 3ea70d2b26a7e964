"""From what pydantic found wrong to sentences for the person who wrote the file."""

from __future__ import annotations

import re
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from tidings.errors import nearest, shown
from tidings_coordinator.experiment.yaml_loader import Path

_EXPECTED = {
    "bool_type": "expected true or false",
    "dict_type": "expected keys with values",
    "finite_number": "expected a finite number",
    "float_type": "expected a number",
    "greater_than": "must be above {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than_equal": "must be at most {le:g}",
    "int_type": "expected a whole number",
    "model_type": "expected keys with values",
    "string_type": "expected text",
    "tuple_type": "expected a list",
}


def explain(error: ValidationError, model: type[BaseModel]) -> list[tuple[Path, str]]:
    """Everything wrong with the input of ``model``: the path of the key, and what is wrong."""
    return [_explain(details, model) for details in error.errors(include_url=False)]


def _explain(error: ErrorDetails, model: type[BaseModel]) -> tuple[Path, str]:
    # pydantic marks the key of a mapping, as opposed to its value, by this
    path = tuple(part for part in error["loc"] if part != "[key]")
    context: dict[str, Any] = error.get("ctx", {})
    value = error["input"]
    match error["type"]:
        case "tidings":
            return (*path, *context["path"]), context["text"]
        case "value_error":
            return path, str(context["error"])
        case "missing":
            return path, "this key is missing"
        case "extra_forbidden":
            return path, f"unknown key; {nearest(str(path[-1]), _keys(model, path[:-1]))}"
        case "literal_error":
            choices = re.findall(r"'([^']*)'", context["expected"])
            return path, f"unknown choice {shown(value)}; {nearest(str(value), choices)}"
        case "model_type" if value is None:
            return path, "nothing is given here; write its keys below it"
        case kind:
            expected = _EXPECTED.get(kind, error["msg"])
            return path, f"{expected.format(**context)}, got {shown(value)}"


def _keys(model: type[BaseModel], path: Path) -> list[str]:
    """The keys of the section of ``model`` at ``path``."""
    for part in path:
        if isinstance(part, str):
            fields = {f.alias or name: f.annotation for name, f in model.model_fields.items()}
            model = _section_in(fields[part]) or model
    return [field.alias or name for name, field in model.model_fields.items()]


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """The model in an annotation such as ``tuple[Slow, ...]`` or ``Byzantine | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_section_in, get_args(annotation))), None)
