"""When waiting has become a deadlock."""

from __future__ import annotations

import time
from collections.abc import Iterable

from tidings.errors import Deadlock
from tidings_coordinator.control.server import Session

#: how long all nodes must have been stuck before that is the verdict
_STUCK_S = 5.0


class Stuck:
    """Looks at what unfinished nodes say of themselves."""

    def __init__(self, time_scale: float) -> None:
        self._patience_s = _STUCK_S * max(1.0, time_scale)
        #: monotonic clock
        self._since_s: float | None = None

    def look(self, waiting: Iterable[Session]) -> None:
        """Deadlock, if for some time every one of them has waited without any timer."""
        beats = {session.node: session.heartbeat for session in waiting}
        now_s = time.monotonic()
        if not beats or not all(beat is not None and beat.stuck for beat in beats.values()):
            self._since_s = None
        elif self._since_s is None:
            self._since_s = now_s
        elif now_s - self._since_s > self._patience_s:
            raise Deadlock.of({node: [beat.waits_for] for node, beat in beats.items() if beat})
