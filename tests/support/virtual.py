"""Coroutines on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from tidings.transports.virtual_time import VirtualLoop, run_virtual

R = TypeVar("R")


def run(main: Coroutine[Any, Any, R], loop: VirtualLoop | None = None) -> R:
    """Run ``main`` to its end on a loop of its own."""
    return run_virtual(main, loop or VirtualLoop())


def now_s() -> float:
    """The virtual time of the running loop."""
    return asyncio.get_running_loop().time()
