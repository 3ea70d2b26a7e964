"""The table of launchers against what they can do, for the reference page."""

from __future__ import annotations

from collections.abc import Iterator

from tidings_coordinator.launchers.base import launchers
from tidings_coordinator.launchers.capabilities import ABILITIES, FEATURES, Shown
from tidings_coordinator.markdown import code, table

_INTRO = """What each can do. `tidings check` and `tidings run` refuse what the chosen one cannot,
with the line and the key that ask for it. The letters stand for the tests below, which show it;
what no test shows is not claimed."""

#: by launcher: the proof; None where it cannot
Row = dict[str, Shown | None]


def capability_table() -> str:
    """The table, and under it the conditions and the tests."""
    marks: dict[Shown, str] = {}
    lines = []
    for title, row in rows():
        cells = [title]
        for name, shown in row.items():
            if shown is None:
                cells.append("no")
                continue
            mark = marks.setdefault(shown, _letter(len(marks)))
            word = launchers.get(name).can.transport if title == TRANSPORT else "yes"
            cells.append(f"{word} <sup>{mark}</sup>")
        lines.append(cells)
    head = ["", *(f"[{name}](#{name})" for name in launchers)]
    proofs = [(mark, shown.note, code(shown.test)) for shown, mark in marks.items()]
    parts = ["## Capabilities", _INTRO, table(head, lines)]
    return "\n\n".join([*parts, table(["", "condition", "test"], proofs)])


TRANSPORT = "messages go over"


def rows() -> Iterator[tuple[str, Row]]:
    """The table: what it is about, and who can."""
    members = {name: launchers.get(name) for name in launchers}
    yield TRANSPORT, {name: member.can.runs for name, member in members.items()}
    for ability, words in ABILITIES.items():
        yield words, {name: member.can.abilities.get(ability) for name, member in members.items()}
    for feature in FEATURES:
        yield (
            code(feature.key),
            {name: feature.shown(name, member.can) for name, member in members.items()},
        )


def _letter(number: int) -> str:
    """a, b, ..., z, aa, ab, ..."""
    high, low = divmod(number, 26)
    return (_letter(high - 1) if high else "") + chr(ord("a") + low)
