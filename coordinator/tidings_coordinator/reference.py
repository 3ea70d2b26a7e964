"""The reference pages, written from the registries, the experiment's models and the command line.

``python -m tidings_coordinator.reference [DIRECTORY]`` writes docs/reference/, all of it; a page
that is no longer generated is removed.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import numpy as np
from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

from tidings.api import Message, Protocol
from tidings.api.message import FieldSpec, fields_of
from tidings.errors import UserError
from tidings.registry import Plugin, key_of
from tidings.units import Duration, Quantity, Rate, Ratio, Size
from tidings.wire.codec import Codec
from tidings_coordinator.experiment.dump import inline
from tidings_coordinator.experiment.families import FAMILIES
from tidings_coordinator.experiment.listing import Parameter, described, listing
from tidings_coordinator.experiment.model import Experiment
from tidings_coordinator.experiment.section import Section, Words
from tidings_coordinator.launchers_reference import capability_table
from tidings_coordinator.markdown import code, markdown, table
from tidings_coordinator.metrics_reference import metric_tables
from tidings_coordinator.records import directory, result
from tidings_coordinator.topology.base import Topology

#: what predictions are made for
NODES, DIM = 8, 10_000
_GRAPHS = ("ring", "star")
#: stand for parameters that have no default, by their type in words
_STAND_INS: dict[str, object] = {"number": 0.1, "whole number": 1}
_QUANTITIES: tuple[type[Quantity], ...] = (Duration, Rate, Ratio, Size)

_NOTE = "<!-- Written by `make reference`; changes belong into the docstrings. -->"


def pages() -> dict[str, str]:
    """All pages, by file name."""
    found = {f"{family}.md": _family(family) for family in FAMILIES}
    found["experiment.md"] = _experiment()
    found["metrics.md"] = _metrics()
    found["cli.md"] = _cli()
    found["run-directory.md"] = _run_directory()
    return found


def _page(title: str, *parts: str) -> str:
    return "\n\n".join([f"# {title}", _NOTE, *parts]) + "\n"


# -- plug-in families ------------------------------------------------------------------------------


def _family(family: str) -> str:
    base = FAMILIES[family]
    own = f"`path/to/file.py:Class` stands for a {base.registry.singular} of your own"
    intro = [markdown(base.__doc__ or ""), f"As `tidings list {family}` shows them; {own}."]
    if family == "launchers":
        intro.append(capability_table())
    members = [_member(base, member["name"], member["parameters"]) for member in listing(family)]
    return _page(family.replace("_", " ").capitalize(), *intro, *members)


def _member(base: type[Plugin], name: str, parameters: Sequence[Parameter]) -> str:
    member = base.registry.get(name)
    comments = _comments(member)
    # what a parameter is called in Python, where that differs
    fields = {key_of(field): field.name for field in dataclasses.fields(typing.cast("Any", member))}
    rows = [
        (
            code(parameter["name"]),
            _type(parameter["type"]),
            "required" if parameter["required"] else code(inline(parameter["default"])),
            markdown(comments.get(fields[parameter["name"]], "")),
        )
        for parameter in parameters
    ]
    head = ["parameter", "type", "default", "meaning"]
    if not any(row[-1] for row in rows):
        head, rows = head[:-1], [row[:-1] for row in rows]  # type: ignore[misc]
    parts = [f"## {name}", markdown(member.__doc__ or ""), table(head, rows)]
    if issubclass(member, Protocol):
        parts += _traffic(member, parameters)
    return "\n\n".join(part for part in parts if part)


def _type(text: str) -> str:
    """A type in words, with a link where it is a family or a quantity."""
    for base in FAMILIES.values():
        word = base.registry.singular
        text = re.sub(rf"\b{word}\b", f"[{word}]({base.registry.family}.md)", text)
    for quantity in _QUANTITIES:
        text = re.sub(rf"\b{quantity.name}\b", f"[{quantity.name}](experiment.md#quantities)", text)
    return text


def _comments(member: type) -> dict[str, str]:
    """What ``#:`` comments say of a class's fields, base classes included."""
    found: dict[str, str] = {}
    for base in reversed(member.__mro__):
        if not issubclass(base, Plugin):
            continue
        comment: list[str] = []
        try:
            source = inspect.getsource(base)
        except OSError:
            # made by the program, as the faults that begin an attack are
            continue
        for line in source.splitlines():
            text = line.strip()
            field = re.match(r"(\w+)\s*:", text)
            if text.startswith("#:"):
                comment.append(text[2:].strip())
                continue
            if field and comment:
                found[field[1]] = " ".join(comment)
            comment = []
    return found


def _traffic(member: type[Protocol], parameters: Sequence[Parameter]) -> Iterator[str]:
    """Its messages, and what a round costs in them."""
    rows = [
        (
            code(kind.__name__),
            ", ".join(f"`{field.name}` ({_field(field)})" for field in fields_of(kind)),
            kind.sender or "all",
        )
        for kind in member.messages
    ]
    yield "Messages:"
    yield table(["message", "fields", "sent by"], rows)
    yield _prediction(member, parameters)


def _field(field: FieldSpec) -> str:
    by = f" by `{field.compressor}`" if field.kind == "compressed" else ""
    return ("part of a " if field.part else "") + field.kind + by


def _prediction(member: type[Protocol], parameters: Sequence[Parameter]) -> str:
    required = [parameter for parameter in parameters if parameter["required"]]
    values = {p["name"]: _STAND_INS[p["type"]] for p in required if p["type"] in _STAND_INS}
    try:
        protocol = member.from_parameters(values)
        codec = Codec(protocol, DIM, nodes=NODES)
        graph, traffic = _on_some_graph(protocol)
    except (UserError, ValueError) as error:
        return f"No prediction without its parameters: {error}."
    total = sum(codec.expected_bytes(kind) * count for kind, count in traffic.items())
    parts = [
        f"{count:.4g} `{kind.__name__}` of {codec.expected_bytes(kind):,.0f} bytes"
        for kind, count in traffic.items()
    ]
    where = f"{NODES} nodes on a {graph}, {DIM:,} parameters"
    return (
        f"Predicted per round over all nodes ({where}, default parameters): "
        f"{' and '.join(parts)}, {total:,.0f} bytes in all."
    )


def _on_some_graph(protocol: Protocol) -> tuple[str, dict[type[Message], float]]:
    """The first graph that the protocol accepts, and its messages per round there."""
    refused = ""
    for name in _GRAPHS:
        schedule = Topology.parse(name).schedule(NODES, np.random.default_rng(0))
        graph = schedule.phases[0].graph
        degrees = tuple(len(graph.in_neighbors(node)) for node in range(NODES))
        try:
            protocol.check(degrees, schedule.facts())
        except ValueError as error:
            refused = str(error)
            continue
        return name, dict(protocol.traffic(schedule.facts()))
    raise ValueError(refused)


# -- the experiment file ---------------------------------------------------------------------------


def _experiment() -> str:
    sections = _sections(Experiment)
    intro = (
        "Every key of an experiment file. Unknown keys are errors; `resolved.yaml` in the run "
        "directory shows every default. Editors read "
        "[experiment.schema.json](../experiment.schema.json)."
    )
    rows = [
        (code(quantity.name), code(quantity.example), ", ".join(map(code, quantity.units)))
        for quantity in _QUANTITIES
    ]
    quantities = "## Quantities\n\nRates, times and sizes are written with their unit.\n\n"
    quantities += table(["quantity", "example", "units"], rows)
    return _page("The experiment file", intro, *map(_section, sections), quantities)


def _sections(root: type[Section]) -> list[type[Section]]:
    """``root`` and all sections inside it, each once, in the order of the file."""
    found = [root]
    for section in found:
        hints = typing.get_type_hints(section, include_extras=True)
        for name in section.model_fields:
            found += [inner for inner in _inner(hints[name]) if inner not in found]
    return found


def _inner(annotation: Any) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for argument in get_args(annotation):
        yield from _inner(argument)


def _section(section: type[Section]) -> str:
    hints = typing.get_type_hints(section, include_extras=True)
    rows = [
        (
            code(field.alias or name),
            _value_type(hints[name]),
            "the file's name" if field is Experiment.model_fields["name"] else _default(field),
            markdown(field.description or ""),
        )
        for name, field in section.model_fields.items()
    ]
    parts = [f"## {section.__name__}", markdown(section.__doc__ or "")]
    return "\n\n".join([*parts, table(["key", "type", "default", "meaning"], rows)])


def _value_type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    if origin in (Union, types.UnionType):
        return " or ".join(map(_value_type, arguments))
    if origin is Annotated and not any(isinstance(item, Words) for item in arguments):
        return _value_type(arguments[0])
    if origin in (tuple, list):
        return f"list of {_value_type(arguments[0])}"
    if origin is dict:
        return f"mapping of {_value_type(arguments[0])} to {_value_type(arguments[1])}"
    return _type(described(annotation))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    annotation: Any = field.annotation
    default = field.get_default(call_default_factory=True)
    if isinstance(default, Section):
        return "its defaults"
    plain = TypeAdapter(annotation).dump_python(default, mode="json", warnings=False)
    return code(inline(plain))


# -- metrics, command line, run directory ----------------------------------------------------------


def _metrics() -> str:
    of_node, of_run = metric_tables()
    intro = (
        "Nodes (unless `metrics.serve` is false) and the coordinator (unless `monitor.serve` is) "
        "serve these at `/metrics`; the coordinator also serves the list of all of them for "
        "Prometheus' HTTP service discovery, with run, node and protocol as labels. They are "
        "views of what the run directory records."
    )
    return _page(
        "Metrics", intro, "## Of every node", of_node, "## Of the run, at the coordinator", of_run
    )


def _cli() -> str:
    import typer

    from tidings_coordinator import cli

    group: Any = typer.main.get_command(cli.app)
    commands = [_command(name, command) for name, command in sorted(group.commands.items())]
    return _page("Command line", markdown(cli.__doc__ or ""), *commands)


def _command(name: str, command: Any) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and p.name != "help"]
    usage = " ".join(["tidings", name, *(_argument(a) for a in arguments)])
    usage += " [OPTIONS]" if options else ""
    rows = [(code(_argument(p)), p.help or "") for p in arguments]
    rows += [(code(_option(p)), _option_help(p)) for p in options]
    text = markdown(command.help or "")
    parts = [f"## tidings {name}", code(usage), text, table(["argument", "meaning"], rows)]
    return "\n\n".join(part for part in parts if part)


def _argument(parameter: Any) -> str:
    return f"{str(parameter.name).upper()}{' ...' if parameter.nargs == -1 else ''}"


def _option(parameter: Any) -> str:
    name = ", ".join(parameter.opts)
    if parameter.is_flag:
        return name
    words = {"int": "NUMBER", "Path": "PATH"}
    given = get_args(parameter.type_descriptor.annotation) or (
        parameter.type_descriptor.annotation,
    )
    return f"{name} {parameter.metavar or words.get(given[0].__name__, 'TEXT')}"


def _option_help(parameter: Any) -> str:
    default = parameter.default
    shown = default not in (None, "") and not parameter.is_flag and not parameter.multiple
    return f"{parameter.help or ''} (default `{default}`)" if shown else parameter.help or ""


def _run_directory() -> str:
    verdicts = f"{markdown(result.__doc__ or '')}\n\n{markdown(result.result.__doc__ or '')}"
    return _page("The run directory", markdown(directory.__doc__ or ""), "## result.json", verdicts)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the pages into the directory given, docs/reference by default."""
    given = sys.argv[1:] if arguments is None else arguments
    root = Path(given[0]) if given else Path("docs/reference")
    root.mkdir(parents=True, exist_ok=True)
    found = pages()
    for stale in {page.name for page in root.glob("*.md")} - set(found):
        (root / stale).unlink()
    for name, text in found.items():
        (root / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
