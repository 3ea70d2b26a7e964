"""A container's health: a node is well while it has its line to the coordinator.

Standard library only, so that asking every few seconds costs nothing:

    python -S health.py      exit code 0: well, 1: not

A node is known by TIDINGS_COORDINATOR in its environment; anything else is well while it listens.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

#: states of a TCP connection in /proc/net/tcp
_ESTABLISHED, _LISTEN = "01", "0A"


def connections(folder: Path = Path("/proc/net")) -> Iterator[tuple[str, int, int]]:
    """(state, own port, other port) of every TCP socket of this network namespace."""
    for name in ("tcp", "tcp6"):
        try:
            table = (folder / name).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in table:
            _, own, other, state, *_ = line.split()
            yield state, int(own.rpartition(":")[2], 16), int(other.rpartition(":")[2], 16)


def well(coordinator: str, folder: Path = Path("/proc/net")) -> bool:
    """Whether this container does what it is there for; ``coordinator`` is host:port or empty."""
    port = coordinator.rpartition(":")[2]
    if not port:
        return any(state == _LISTEN for state, _, _ in connections(folder))
    return any(
        state == _ESTABLISHED and str(other) == port for state, _, other in connections(folder)
    )


if __name__ == "__main__":
    sys.exit(0 if well(os.environ.get("TIDINGS_COORDINATOR", "")) else 1)
