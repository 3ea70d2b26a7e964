"""What a run looks like from outside while it goes on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tidings_coordinator.control.server import Session


@dataclass
class NodeView:
    """One node as it was last heard of."""

    state: str = "starting"
    round: int = 0
    sent_bytes: int = 0
    accuracy: float | None = None
    loss: float | None = None
    #: what it waits for, in words
    waits_for: str = ""
    #: bytes that it has handed to each outgoing link, by target
    link_bytes: Mapping[int, int] = field(default_factory=dict)


@dataclass
class RunView:
    """A run as it was last heard of."""

    name: str
    phase: str = "starting"
    time_s: float = 0.0
    target_rounds: int | None = None
    nodes: dict[int, NodeView] = field(default_factory=dict)
    honest: tuple[int, ...] = ()
    #: bytes of the control plane, both ways
    control_bytes: int = 0

    @property
    def sent_bytes(self) -> int:
        """Bytes that all nodes have sent."""
        return sum(node.sent_bytes for node in self.nodes.values())

    @property
    def round(self) -> int:
        """Rounds that every node has completed."""
        return min((node.round for node in self.nodes.values()), default=0)

    def follow(self, sessions: Iterable[Session]) -> None:
        """Bring the nodes up to what they have said last."""
        for session in sessions:
            node, beat = self.nodes[session.node], session.heartbeat
            if beat is not None:
                node.round, node.sent_bytes, node.state = beat.round, beat.sent_bytes, beat.state
                node.waits_for, node.link_bytes = beat.waits_for, beat.link_bytes
            if session.done is not None:
                node.state, node.round = "finished", session.done.rounds
            if session.gone and session.final is None:
                node.state = "dead"

    def mean(self, metric: str) -> float | None:
        """The latest ``accuracy`` or ``loss``, averaged over the honest nodes that have one."""
        values = [getattr(self.nodes[i], metric) for i in self.honest if i in self.nodes]
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known else None


class Watcher:
    """Is shown the run several times a second; the base class looks away."""

    def show(self, view: RunView) -> None:
        """The run as it stands."""

    def say(self, text: str) -> None:
        """One line that the user should see."""

    def close(self) -> None:
        """The run is over."""


class Watchers(Watcher):
    """Several that watch the same run."""

    def __init__(self, *watchers: Watcher) -> None:
        self._watchers = watchers

    def show(self, view: RunView) -> None:
        for watcher in self._watchers:
            watcher.show(view)

    def say(self, text: str) -> None:
        for watcher in self._watchers:
            watcher.say(text)

    def close(self) -> None:
        for watcher in self._watchers:
            watcher.close()
