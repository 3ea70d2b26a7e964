"""docs/reproductions.md, from the declarations and the tables that were measured.

``python -m tidings_coordinator.reproducing.page [ROOT]`` prints it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tidings_coordinator.markdown import code, table
from tidings_coordinator.reproducing.carrying_out import (
    FIGURE,
    cell_text,
    declared,
    measured,
    names,
)
from tidings_coordinator.reproducing.declaration import Reproduction

ROOT = Path("reproductions")

_HEAD = """# Reproductions

<!-- Written by `make reference` from reproductions/*/claim.py and measured.json. -->

Published claims, each shown by one command. `tidings reproduce NAME` makes the runs (in the
simulator where the claim is about rounds, bytes or virtual time, as real processes where it is
about seconds), prints claim, table and verdict, and exits with 1 where the claim was not found.
The tables and figures below are what it wrote. `tidings reproduce --list` lists them."""


def page(root: Path) -> str:
    """The whole page."""
    found = [(name, declared(root, name), measured(root, name)) for name in names(root)]
    rows = [(f"[{name}](#{name})", one.title, _verdict(one, data)) for name, one, data in found]
    parts = [_HEAD, table(["name", "claim", "verdict"], rows)]
    for name, one, data in found:
        parts += [f"## {name}", f"**{one.title}.** {one.claim}", f"Source: {one.source}."]
        if one.remarks:
            parts.append(one.remarks)
        parts.append(_measured(data))
        parts.append("\n".join(_check(check) for check in data["checks"]))
        if (root / name / FIGURE).exists():
            parts.append(f"![{one.title}](../reproductions/{name}/{FIGURE})")
        parts.append(_how(name, data))
    return "\n\n".join(parts) + "\n"


def _verdict(one: Reproduction, data: dict[str, Any]) -> str:
    if not data["reproduced"]:
        return "**not reproduced**"
    if data["launcher"] == "simulator" != one.launcher:
        return f"in the simulator only, not yet by {code(one.launcher)}"
    return "reproduced"


def _measured(data: dict[str, Any]) -> str:
    head = list(data["rows"][0])
    rows = [[cell_text(row[column]) for column in head] for row in data["rows"]]
    return table(head, rows)


def _check(check: dict[str, Any]) -> str:
    return f"- {'holds' if check['passed'] else '**does not hold**'}: {check['text']}"


def _how(name: str, data: dict[str, Any]) -> str:
    wall_s = sum(data["runs"].values())
    versions = ", ".join(f"{key} {value}" for key, value in data["versions"].items())
    return (
        f"{code(f'tidings reproduce {name}')}, {len(data['runs'])} runs by the launcher "
        f"{code(data['launcher'])} in {wall_s:.0f} s, {data['date']} ({versions})."
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the page of the reproductions in the folder given."""
    given = sys.argv[1:] if arguments is None else arguments
    print(page(Path(given[0]) if given else ROOT), end="")


if __name__ == "__main__":
    main()
