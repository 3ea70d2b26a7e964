"""Markdown from docstrings and rows."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence

_ROLE = re.compile(r":\w+:`[.~]?([^`]+)`")


def code(text: str) -> str:
    """As code."""
    return f"`{text}`"


def markdown(docstring: str) -> str:
    """A docstring as Markdown: literal blocks fenced, names in single backquotes."""
    lines: list[str] = []
    block: list[str] | None = None
    for line in [*inspect.cleandoc(docstring).splitlines(), "."]:
        if block is not None and line and not line.startswith(" "):
            blank = [""] if lines and lines[-1] else []
            lines += [
                *blank,
                "```text",
                *inspect.cleandoc("\n".join(block)).splitlines(),
                "```",
                "",
            ]
            block = None
        if block is not None:
            block.append(line)
            continue
        plain = _ROLE.sub(r"`\1`", line.replace("``", "`"))
        if plain.rstrip().endswith("::"):
            block = []
            plain = plain.rstrip().removesuffix("::").rstrip()
            plain = plain + ":" if plain else ""
        lines.append(plain)
    text = "\n".join(lines[:-1])
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; '' without rows."""
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    lines = [head, ["---"] * len(head), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) if cells else ""
