"""Schedules of faults as text that fits into one command, which does the same again."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def packed(schedule: dict[str, Any]) -> str:
    """A schedule as one word."""
    data = json.dumps(schedule, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(zlib.compress(data, 9)).decode()


def unpacked(word: str) -> dict[str, Any]:
    """The schedule again."""
    return dict(json.loads(zlib.decompress(base64.urlsafe_b64decode(word))))


def command(schedule: dict[str, Any]) -> str:
    """What to type, in the root of the repository."""
    return f"python tests/replay_schedule.py {packed(schedule)}"


@contextmanager
def replayable(schedule: dict[str, Any]) -> Iterator[None]:
    """Whatever is raised in here says how to see it again."""
    try:
        yield
    except Exception as error:
        error.add_note(f"to see it again: {command(schedule)}")
        raise
