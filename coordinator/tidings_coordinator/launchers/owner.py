"""Who made a thing that can outlive its maker, written on the thing itself."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Owner:
    """A ``tidings run`` process; the number alone could be somebody else's by now."""

    pid: int
    #: clock ticks from boot to the process's start
    began: int
    run: str = ""

    @classmethod
    def me(cls) -> Owner:
        """This process."""
        return cls(os.getpid(), _began(os.getpid()) or 0)

    @classmethod
    def parse(cls, text: str) -> Owner | None:
        """What ``text`` wrote; None for anything else."""
        match = re.fullmatch(r"tidings run (\S+) by (\d+) since (\d+)", text)
        return None if match is None else cls(int(match[2]), int(match[3]), match[1])

    def text(self, run: str) -> str:
        """To be written on things."""
        return f"tidings run {run} by {self.pid} since {self.began}"

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return _began(self.pid) == self.began


def _began(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, *fields = stat.rpartition(")")[2].split()
    return None if state == "Z" else int(fields[18])
