"""Where the owner of a run's local processes can be spoken to: a socket in the run directory."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

_NAME = "nodes.sock"


@contextlib.contextmanager
def door(directory: Path) -> Iterator[str]:
    """The socket's path, short enough however long the directory's is (108 bytes are the limit)."""
    folder = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{_NAME}"
    finally:
        os.close(folder)


def listen(directory: Path) -> socket.socket:
    """Open the door, for this user only."""
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        with door(directory) as path:
            opened.bind(path)
    finally:
        os.umask(mask)
    opened.listen(1)
    return opened


def remove(directory: Path) -> None:
    """Leave nothing behind."""
    (directory / _NAME).unlink(missing_ok=True)
