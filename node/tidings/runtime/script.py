"""What the waits of a node ended with, so that they can end the same way again."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from tidings.errors import RunError
from tidings.runtime.plan import Taken


class Script:
    """The waits of one node, by the type that is asked for, each in the order of their ends."""

    def __init__(self, node: int, taken: Sequence[Taken]) -> None:
        self._node = node
        self._left: dict[str, deque[Taken]] = {}
        for each in taken:
            self._left.setdefault(each.asked, deque()).append(each)

    def next(self, asked: str) -> Taken | None:
        """How the next wait for that type ends; None: it had not when the run was over."""
        left = self._left.get(asked)
        return left.popleft() if left else None

    def round(self, asked: str, round_: int, step: int) -> Taken | None:
        """How the gather of a round ends; RunError where another one was recorded."""
        found = self.next(asked)
        if found is not None and (found.round, found.step) != (round_, step):
            raise RunError(
                f"node {self._node} gathers {asked} of round {round_} where it gathered that of "
                f"round {found.round}: this is not the run that was recorded"
            )
        return found
