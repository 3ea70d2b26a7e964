"""How often the MPI thread calls: at full speed while messages are on their way, a thousand times a
second otherwise."""

from __future__ import annotations

import os
import threading
import time

#: how long it keeps calling without a pause: after an event, and while something is on its way
_SPIN_S, _SPIN_PENDING_S = 0.0005, 0.005
#: and with the shortest pauses there are, while something is on its way
_HURRY_PENDING_S = 0.05
#: pauses between calls: shortly after an event, and later
_NAP_S, _LONG_NAP_S, _QUIET_S = 0.0005, 0.001, 0.1


class Pace:
    """``rest`` between two looks at everything, in the MPI thread; ``hurry`` from any thread."""

    def __init__(self) -> None:
        self._wake = threading.Event()
        self._last_event_s = 0.0

    def hurry(self) -> None:
        """There is something to do."""
        self._wake.set()

    def rest(self, happened: bool, pending: bool) -> None:
        """Pause for as long as the next event may wait: ``pending`` ones are wanted soon."""
        now_s = time.monotonic()
        if happened:
            self._last_event_s = now_s
        quiet_s = now_s - self._last_event_s
        if quiet_s < (_SPIN_PENDING_S if pending else _SPIN_S):
            # other processes may run; other threads do while MPI is called
            os.sched_yield()
        elif pending and quiet_s < _HURRY_PENDING_S:
            # takes some 50 us: what the kernel allows timers to be late
            time.sleep(0)
        else:
            self._wake.wait(_NAP_S if quiet_s < _QUIET_S else _LONG_NAP_S)
            self._wake.clear()
