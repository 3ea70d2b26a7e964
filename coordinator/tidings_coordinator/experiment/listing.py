"""What there is to choose from: the members of every plug-in family and their parameters."""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, TypedDict, Union, get_args, get_origin

from pydantic import TypeAdapter

from tidings.errors import UnknownKind, nearest
from tidings.registry import LocalPath, Plugin, key_of
from tidings.units import Quantity
from tidings_coordinator.experiment.dump import inline
from tidings_coordinator.experiment.families import FAMILIES
from tidings_coordinator.experiment.section import Words

_WORDS: dict[Any, str] = {
    bool: "true or false",
    float: "number",
    int: "whole number",
    str: "text",
    type(None): "null",
    LocalPath: "file",
}


class Parameter(TypedDict):
    """One parameter of a plug-in."""

    name: str
    #: for people: "duration", "compressor", "whole number or null"
    type: str
    #: as it would stand in a file; None where it is required
    default: Any
    required: bool


#: where a sentence ends and another begins
_SENTENCE = re.compile(r"(?<=\.)\s+(?=[A-Z])")


class Member(TypedDict):
    """One plug-in of a family."""

    name: str
    #: the first sentence of its documentation
    summary: str
    parameters: list[Parameter]


def listing(family: str) -> list[Member]:
    """The members of ``family`` by name, ready for JSON; UnknownKind for what is no family."""
    if family not in FAMILIES:
        raise UnknownKind(f"unknown family '{family}'; {nearest(family, FAMILIES)}")
    registry = FAMILIES[family].registry
    return [_member(name, registry.get(name)) for name in registry]


def text(members: Sequence[Member]) -> str:
    """The same for reading, a few lines each."""
    return "\n".join(line for member in members for line in _lines(member))


def _lines(member: Member) -> Iterator[str]:
    yield f"{member['name']}: {member['summary']}"
    for parameter in member["parameters"]:
        value = "(required)" if parameter["required"] else f"= {inline(parameter['default'])}"
        yield f"    {parameter['name']}: {parameter['type']} {value}"


def _member(name: str, plugin: Any) -> Member:
    annotations = typing.get_type_hints(plugin, include_extras=True)
    parameters = [
        _parameter(field, annotations[field.name])
        for field in dataclasses.fields(plugin)
        if field.init
    ]
    paragraph = " ".join((inspect.getdoc(plugin) or "").partition("\n\n")[0].split())
    summary = _SENTENCE.split(paragraph, maxsplit=1)[0]
    return Member(name=name, summary=summary, parameters=parameters)


def _parameter(field: dataclasses.Field[Any], annotation: Any) -> Parameter:
    required, default = False, None
    if field.default is not dataclasses.MISSING:
        default = field.default
    elif field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    else:
        required = True
    return Parameter(
        name=key_of(field),
        type=described(annotation),
        default=None
        if required
        else TypeAdapter(annotation).dump_python(default, mode="json", warnings=False),
        required=required,
    )


def described(annotation: Any) -> str:
    """A parameter's type in words, e.g. "list of whole number" or "'mlp' or 'cnn'"."""
    if annotation in _WORDS:
        return _WORDS[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        words = [item.text for item in arguments[1:] if isinstance(item, Words)]
        return words[0] if words else described(arguments[0])
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if origin in (Union, types.UnionType):
        return " or ".join(map(described, arguments))
    if origin in (tuple, list):
        return f"list of {described(arguments[0])}"
    if isinstance(annotation, type) and issubclass(annotation, Plugin):
        return annotation.registry.singular
    if isinstance(annotation, type) and issubclass(annotation, Quantity):
        return annotation.name
    return str(annotation)
