"""What a node did when: computing, held up in sending, or neither, which is waiting.

Spans follow each other without a gap. As long as there are few of them each is of one state; then
neighbours are put together, with what they had of each state, so that any run takes little room:
with ``most`` spans, about ``most (1 + log2(T / t) / 2)`` where the first ``most`` took t of T.
"""

from __future__ import annotations

import itertools
from typing import Literal

from tidings.api.node import Clock
from tidings.v1 import records_pb2 as records

State = Literal["computing", "sending"]

_NS_PER_US = 1000


class Timeline:
    """Keeps one node's spans until they are taken. ``most`` = 0: keeps nothing.

    ``clock`` is emulated time. Several coroutines of a node may be at work at once; as long as one
    of them computes, the node is computing.
    """

    def __init__(self, node: int, clock: Clock, most: int) -> None:
        self._node = node
        self._clock = clock
        self._most = most
        self._at_work = {"computing": 0, "sending": 0}
        #: since when the state is what it is, and since when the open span
        self._since_ns = self._from_ns = 0
        self._spent_ns = {"computing": 0, "sending": 0}
        #: (from, computing, sending) of every closed span
        self._spans: list[tuple[int, int, int]] = []
        self._made = 0
        #: no span is shorter
        self._least_ns = 1
        self._ended = most == 0

    @property
    def pending(self) -> int:
        """Spans that can be taken."""
        return len(self._spans)

    def begin(self) -> None:
        """The run has begun, now."""
        self._since_ns = self._from_ns = self._clock.now_ns

    def end(self) -> None:
        """The node has ended, now, and nothing that is heard later counts."""
        if not self._ended:
            self._settle()
            self._close()
            self._ended = True

    def enter(self, state: State) -> None:
        """A coroutine begins to compute or to send."""
        self._change(state, 1)

    def leave(self, state: State) -> None:
        """It does so no more."""
        self._change(state, -1)

    def take(self) -> records.Activity | None:
        """The spans since the last call, up to now; None where there are none."""
        if not self._ended:
            self._settle()
            self._close()
        if not self._spans:
            return None
        edges = [round(span[0] / _NS_PER_US) for span in self._spans]
        edges.append(round(self._from_ns / _NS_PER_US))
        found = records.Activity(
            node=self._node,
            from_us=edges[0],
            length_us=[end - start for start, end in itertools.pairwise(edges)],
            computing_us=[round(span[1] / _NS_PER_US) for span in self._spans],
            sending_us=[round(span[2] / _NS_PER_US) for span in self._spans],
        )
        self._spans = []
        return found

    def _state(self) -> State | None:
        if self._at_work["computing"]:
            return "computing"
        return "sending" if self._at_work["sending"] else None

    def _change(self, state: State, step: int) -> None:
        if self._ended:
            return
        before = self._state()
        self._at_work[state] += step
        if self._state() == before:
            return
        self._settle(before)
        if self._since_ns - self._from_ns >= self._least_ns:
            self._close()

    def _settle(self, state: State | Literal["now"] | None = "now") -> None:
        """Count the time since the last change for the state that it was in."""
        now_ns = self._clock.now_ns
        if state == "now":
            state = self._state()
        if state is not None:
            self._spent_ns[state] += now_ns - self._since_ns
        self._since_ns = now_ns

    def _close(self) -> None:
        """The open span ends, and the next one begins."""
        length_ns = self._since_ns - self._from_ns
        if length_ns <= 0:
            return
        spent = self._spent_ns
        self._spans.append((self._from_ns, spent["computing"], spent["sending"]))
        self._from_ns, self._spent_ns = self._since_ns, {"computing": 0, "sending": 0}
        self._made += 1
        if self._made >= self._most:
            self._made = self._most // 2
            self._least_ns = max(2 * self._least_ns, 2 * self._since_ns // self._most)
