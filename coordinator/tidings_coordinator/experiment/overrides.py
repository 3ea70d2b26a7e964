"""``--set a.b=value``: changes to an experiment file from the command line."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tidings.errors import shown
from tidings_coordinator.experiment.errors import ExperimentError
from tidings_coordinator.experiment.yaml_loader import Path, YamlError, parse

_KEY = re.compile(r"[^.=\s]+(\.[^.=\s]+)*")
#: the short form of a plug-in, whose other parameters are to be set
_BARE_KIND = re.compile(r"[A-Za-z_]\w*|.+\.py:\w+")
_CLOSING = {"[": "]", "{": "}"}


@dataclass(frozen=True)
class Override:
    """One ``--set``."""

    #: as it was given, ``a.b=value``
    text: str
    keys: tuple[str, ...]
    value: Any

    @classmethod
    def parse(cls, text: str) -> Override:
        """Read ``a.b=value``; the value is YAML. Raises ExperimentError."""
        key, equals, value = text.partition("=")
        if not equals or not _KEY.fullmatch(key.strip()):
            raise ExperimentError(f"--set {text}: write it as key=value or outer.inner=value")
        try:
            found = parse(value).value
        except YamlError as error:
            raise ExperimentError(f"--set {text}: {error.message}") from error
        return cls(text, tuple(key.strip().split(".")), found)

    def apply(self, root: dict[str, Any]) -> Path | None:
        """Change ``root`` in place. Raises ExperimentError.

        A bare kind in the place of a plug-in of that kind leaves it its parameters, so that
        ``--launcher mpi`` means the launcher that the file describes. Returns the path of what was
        set, or of the outermost mapping that was made to hold it; None where nothing was.
        """
        container: Any = root
        path: Path = ()
        made: Path = ()
        for text in self.keys[:-1]:
            key = self._key(text, container, path)
            path = (*path, key)
            inner = container[key] if isinstance(key, int) else container.get(key)
            if inner is None:
                container[key] = {}
                made = made or path
            elif isinstance(inner, str) and _BARE_KIND.fullmatch(inner):
                container[key] = {"kind": inner}
            container = container[key]
        key = self._key(self.keys[-1], container, path)
        before = container[key] if isinstance(key, int) else container.get(key)
        kind = before.get("kind") if isinstance(before, dict) else None
        if kind is not None and kind == self.value:
            return None
        container[key] = self.value
        return made or (*path, key)

    def _key(self, text: str, container: object, path: Path) -> str | int:
        """``text`` as a key of ``container``, which stands at ``path``."""
        if isinstance(container, dict):
            return text
        where = ".".join(map(str, path))
        if not isinstance(container, list):
            what = f"{where} is {shown(container)}, which has no '{text}'"
            raise ExperimentError(f"--set {self.text}: {what}")
        return self._index(text, container, where)

    def _index(self, text: str, entries: list[Any], where: str) -> int:
        if text.isdecimal() and int(text) < len(entries):
            return int(text)
        has = f"entries 0 to {len(entries) - 1}" if entries else "no entries"
        raise ExperimentError(f"--set {self.text}: {where} has {has}, not '{text}'")


def expand(overrides: Sequence[str]) -> list[list[str]]:
    """All combinations of overrides that give several values: ``a=1,2`` is ``a=1`` and ``a=2``.

    Commas within brackets, braces and quotes separate nothing. The last override changes fastest.

    >>> expand(["seed=1,2", "network.rate=1Mbit/s"])
    [['seed=1', 'network.rate=1Mbit/s'], ['seed=2', 'network.rate=1Mbit/s']]
    """
    choices = []
    for override in overrides:
        key, equals, values = override.partition("=")
        parts = list(_split(values))
        if len(parts) > 1 and not all(part.strip() for part in parts):
            raise ExperimentError(f"--set {override}: there is no value before or after a comma")
        choices.append([f"{key}{equals}{part}" for part in parts])
    return [list(combination) for combination in itertools.product(*choices)]


def _split(values: str) -> Iterator[str]:
    """The parts of ``values`` between its outermost commas."""
    #: the brackets and quotes that are open, by what closes them
    closing: list[str] = []
    part = ""
    for character in values:
        if closing and character == closing[-1]:
            closing.pop()
        elif closing and closing[-1] in "'\"":
            pass
        elif character in "'\"":
            closing.append(character)
        elif character in _CLOSING:
            closing.append(_CLOSING[character])
        elif character == "," and not closing:
            yield part
            part = ""
            continue
        part += character
    yield part
