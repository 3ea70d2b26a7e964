"""What holds a node still: paused, or gone for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Gate:
    """Closed by events, open when none of them holds it any more.

    What arrives meanwhile waits (``hold``), or is not heard at all where one of them is ``deaf``.
    """

    def __init__(self) -> None:
        self._closed: dict[str, bool] = {}
        self._opened = asyncio.Event()
        self._opened.set()
        self._held: list[Callable[[], None]] = []

    @property
    def closed(self) -> bool:
        """Whether the node stands still."""
        return bool(self._closed)

    def close(self, event: str, deaf: bool) -> None:
        """Stand still."""
        self._closed[event] = deaf
        self._opened.clear()

    def open(self, event: str) -> None:
        """Go on, unless another event holds it."""
        self._closed.pop(event, None)
        if not self._closed:
            self._opened.set()
            held, self._held = self._held, []
            for arrive in held:
                arrive()

    def open_all(self) -> None:
        """Go on, whatever holds it."""
        for event in list(self._closed):
            self.open(event)

    def hold(self, arrive: Callable[[], None]) -> bool:
        """Keep an arrival for later; False where it is not heard at all."""
        if any(self._closed.values()):
            return False
        self._held.append(arrive)
        return True

    async def passed(self) -> None:
        """Until the node may go on."""
        if self._closed:
            await self._opened.wait()
