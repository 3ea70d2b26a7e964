"""What the director sees of a run, and what it can do to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from tidings.runtime.plan import ArmedFault

#: is told that something is done: when (emulated seconds), and what is known of it
Done = Callable[[float, Mapping[str, Any]], None]


@dataclass(frozen=True)
class View:
    """The run as it stands, as far as triggers look at it."""

    time_s: float
    #: rounds that each node has completed
    rounds: Mapping[int, int]
    sent_bytes: int


class Hands(Protocol):
    """What can be done to nodes from outside; the simulator's controls are of this form."""

    def begin(self, node: int, armed: ArmedFault) -> None:
        """Let a fault begin at a node; the node will say when it has."""
        ...

    def heal(self, node: int, event: str, occurrence: int) -> None:
        """Let a fault end at a node."""
        ...

    def kill(self, node: int, comes_back: bool) -> None:
        """Kill a node; ``comes_back``: it is to be started again later."""
        ...

    def pause(self, node: int, event: str) -> None:
        """Let a node stand still."""
        ...

    def resume(self, node: int, event: str) -> None:
        """Let a node go on."""
        ...

    def restart(self, node: int, lose_state: bool) -> None:
        """Start a node again that was killed."""
        ...

    def tell(self, node: int, present: bool) -> None:
        """Let a node's neighbours know that it takes part, or does not."""
        ...

    def hang_up(self, done: Done) -> None:
        """Break the lines between coordinator and nodes, and let no new ones come about."""
        ...

    def listen(self, done: Done) -> None:
        """Let the nodes find the coordinator again; done when they all have."""
        ...

    def crash(self, after_s: float) -> None:
        """The coordinator dies, now; another one takes over after so many emulated seconds."""
        ...
