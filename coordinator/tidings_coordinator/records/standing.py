"""What of a run's files still stands after it was resumed.

A resumed run goes on in the files of the interrupted one, which are only ever appended to. Its
event ``resumed`` says how long they were then and after which rounds the nodes went on; rows of
later rounds before that, and closing records, belong to a past that did not happen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tidings_coordinator.records.directory import read_lines

RESUMED = "resumed"


def standing(path: Path, name: str) -> Iterator[dict[str, Any]]:
    """The lines of ``name``.jsonl that count."""
    resumptions = [line for line in read_lines(path, "events") if line["event"] == RESUMED]
    for number, line in enumerate(read_lines(path, name)):
        if not any(_undone(number, line, name, event) for event in resumptions):
            yield line


def _undone(number: int, line: Mapping[str, Any], name: str, event: Mapping[str, Any]) -> bool:
    """Whether a resumption has made a line void."""
    if number >= event["lines"].get(name, 0):
        return False
    after = event["rounds"].get(str(line.get("node")))
    return name != "series" or after is None or line["round"] > after or line["final"]
