"""Who was turned away at the coordinator's doors."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable

from tidings.errors import RecordError

#: per reason; whoever knocks a million times shall not fill the disk
_LOGGED = 20


class Refusals:
    """All are counted; the first few of each reason become events of the run."""

    def __init__(self, event: Callable[..., None] | None = None) -> None:
        self._event = event
        self.counts: Counter[str] = Counter()

    def add(self, reason: str, peer: str, detail: str = "") -> None:
        """``peer`` was refused for ``reason``, a word; ``detail`` is for people."""
        self.counts[reason] += 1
        if self._event is not None and self.counts[reason] <= _LOGGED:
            # a disk that is full will be noticed by the run itself
            with contextlib.suppress(RecordError):
                self._event("refused", reason=reason, peer=peer, detail=detail)
