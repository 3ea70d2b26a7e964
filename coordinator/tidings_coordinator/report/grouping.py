"""Which runs belong together, and what tells the others apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tidings_coordinator.experiment.dump import inline
from tidings_coordinator.records.reading import Run

#: keys that have no part in what the nodes do
_IGNORED = ("seed", "target", "metrics", "monitor", "records", "security")
_MISSING = object()


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed only."""

    label: str
    runs: list[Run]


def flatten(data: Any, path: tuple[str, ...] = ()) -> dict[str, Any]:
    """Nested mappings as 'a.b.c' -> value; lists are values, written on one line."""
    if isinstance(data, Mapping) and data:
        found: dict[str, Any] = {}
        for key, value in data.items():
            found |= flatten(value, (*path, str(key)))
        return found
    return {".".join(path): inline(data) if isinstance(data, list | Mapping) else data}


def group(runs: Sequence[Run]) -> list[Group]:
    """The runs by setting, in order of appearance, labelled by the settings that differ."""
    gathered: dict[tuple[tuple[str, str], ...], list[Run]] = {}
    settings: list[dict[str, Any]] = []
    unknown = [Group(run.path.name, [run]) for run in runs if not run.resolved]
    for run in runs:
        if not run.resolved:
            continue
        flat = {
            key: value
            for key, value in flatten(run.resolved).items()
            if key.split(".")[0] not in _IGNORED
        }
        identity = tuple(sorted((key, repr(value)) for key, value in flat.items()))
        if identity not in gathered:
            settings.append(flat)
        gathered.setdefault(identity, []).append(run)
    names = labels(settings)
    return [
        Group(label or members[0].name, members)
        for label, members in zip(names, gathered.values(), strict=True)
    ] + unknown


def labels(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """For each of some different flat settings 'key=value, ...' with the keys that differ.

    Left out where the rest is enough: parameters that come and go with a kind, the name, and what
    is not set.
    """
    keys = list(dict.fromkeys(key for flat in settings for key in flat))
    different = [key for key in keys if _differs(key, settings)]
    shown = [key for key in different if key != "name"] or different

    def label(flat: Mapping[str, Any], unset: bool) -> str:
        there = [key for key in shown if key in flat and (unset or flat[key] is not None)]
        return ", ".join(f"{key}={_text(flat[key])}" for key in there)

    short = [label(flat, unset=False) for flat in settings]
    if all(short) and len(set(short)) == len(short):
        return short
    return [label(flat, unset=True) for flat in settings]


def _differs(key: str, settings: Sequence[Mapping[str, Any]]) -> bool:
    values = [flat.get(key, _MISSING) for flat in settings]
    there = {repr(value) for value in values if value is not _MISSING}
    if len(there) > 1:
        return True
    return _MISSING in values and not _explained(key, settings)


def _explained(key: str, settings: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a kind further up tells where this key is and where it is not."""
    parts = key.split(".")
    for depth in range(len(parts) - 1, 0, -1):
        kind = ".".join([*parts[:depth], "kind"])
        if kind == key:
            continue
        having = {flat.get(kind) for flat in settings if key in flat}
        lacking = {flat.get(kind) for flat in settings if key not in flat}
        if None not in having and not having & lacking:
            return True
    return False


def _text(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
