"""A container's health: a node is well while it has its line to the coordinator.

Standard library only, so that asking every few seconds costs nothing:

    python -S health.py      exit code 0: well, 1: not

A node is known by TIDINGS_COORDINATOR in its environment; anything else is well while it listens.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

#: states of a TCP connection in /proc/net/tcp
_ESTABLISHED, _LISTEN = "01", "0A"


def connections(folder: Path = Path("/proc/net")) -> Iterator[tuple[str, str]]:
    """(state, other end's address in the kernel's hexadecimal) of every TCP socket here."""
    for name in ("tcp", "tcp6"):
        try:
            table = (folder / name).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in table:
            _, _, other, state, *_ = line.split()
            yield state, other.rpartition(":")[0]


def well(coordinator: str, folder: Path = Path("/proc/net")) -> bool:
    """Whether this container does what it is there for; ``coordinator`` is host:port or empty.

    The port does not count: under TLS it is where nodes enrol, and the line goes to another one.
    """
    host = coordinator.rpartition(":")[0]
    if not host:
        return any(state == _LISTEN for state, _ in connections(folder))
    try:
        addresses = socket.gethostbyname_ex(host)[2]
    except OSError:
        return False
    # IPv4 is written backwards, and as the end of an IPv6 address where the socket is of that kind
    wanted = tuple(socket.inet_aton(address)[::-1].hex().upper() for address in addresses)
    return any(
        state == _ESTABLISHED and other.endswith(wanted) for state, other in connections(folder)
    )


if __name__ == "__main__":
    sys.exit(0 if well(os.environ.get("TIDINGS_COORDINATOR", "")) else 1)
