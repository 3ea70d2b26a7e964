"""Who was not heard for too long. Pure: time is passed in.

Heartbeats and a fixed time-out: their interval and the delay of every link are in the experiment,
so there is nothing for an adaptive detector to learn but what the machine adds.
"""

from __future__ import annotations

from collections.abc import Iterable


class Detector:
    """Suspects who was silent for ``limit_s`` or longer. ``now_s`` never goes back."""

    def __init__(self, peers: Iterable[int], limit_s: float, now_s: float) -> None:
        self._limit_s = limit_s
        self._heard_s = dict.fromkeys(peers, now_s)

    def heard(self, peer: int, now_s: float) -> None:
        """Something of a peer's has come; of one that is not watched, it does not matter."""
        if peer in self._heard_s:
            self._heard_s[peer] = now_s

    def silent(self, now_s: float) -> dict[int, float]:
        """Who is to be suspected now, and the seconds for which each was silent."""
        return {
            peer: now_s - heard_s
            for peer, heard_s in self._heard_s.items()
            if now_s >= heard_s + self._limit_s
        }

    def next_s(self, now_s: float) -> float:
        """The earliest time at which somebody else could become suspect; inf for never."""
        due_s = (heard_s + self._limit_s for heard_s in self._heard_s.values())
        return min((at_s for at_s in due_s if at_s > now_s), default=float("inf"))

    def deaf(self, now_s: float) -> None:
        """Whoever watches could hear nobody until now, so nobody's silence counts."""
        self._heard_s = dict.fromkeys(self._heard_s, now_s)
