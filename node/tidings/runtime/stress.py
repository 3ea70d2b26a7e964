"""Processes that use up the machine, for as long as they are wanted."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

from tidings.faults.base import Heal

_PAGE_BYTES = 4096


def load(workers: int, memory_bytes: int) -> Heal:
    """Start ``workers`` processes that compute, the first one holding memory; they die with this
    process."""
    command = [sys.executable, "-m", "tidings.runtime.stress", str(os.getpid())]
    burning = ["1"] * workers or ["0"]
    children = [
        subprocess.Popen([*command, burn, str(memory_bytes if number == 0 else 0)])
        for number, burn in enumerate(burning)
    ]
    began = time.monotonic()

    def heal() -> Mapping[str, Any]:
        alive = sum(child.poll() is None for child in children)
        for child in children:
            child.kill()
            child.wait()
        return {"processes": alive, "wall_s": round(time.monotonic() - began, 3)}

    return heal


def main() -> None:
    """``python -m tidings.runtime.stress PARENT BURN MEMORY``."""
    from tidings.runtime.forkserver import die_with_parent

    parent, burn, memory_bytes = map(int, sys.argv[1:])
    die_with_parent(parent)
    held = bytearray(memory_bytes)
    for start in range(0, memory_bytes, _PAGE_BYTES):
        held[start] = 1
    while True:
        if burn:
            sum(range(100_000))
        else:
            time.sleep(1.0)


if __name__ == "__main__":
    main()
