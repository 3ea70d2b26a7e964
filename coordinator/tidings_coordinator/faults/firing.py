"""A fault event resolved: who is hit, when, and for how long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tidings.faults.base import Fault, OutsideFault
from tidings.runtime.plan import ArmedFault
from tidings_coordinator.faults.events import After, RoundOf, Span, When

Arc = tuple[int, int]


@dataclass(frozen=True)
class Trigger:
    """When it begins: exactly one of these is given."""

    time_s: float | None = None
    round: int | None = None
    #: whose round
    of: RoundOf = "own"
    sent_bytes: int | None = None
    when: When | None = None
    after: After | None = None

    def asked(self) -> dict[str, Any]:
        """As it goes into the records."""
        if self.when is not None:
            return {"when": self.when.model_dump(mode="json", by_alias=True)}
        if self.after is not None:
            return {"after": self.after.model_dump(mode="json")}
        if self.round is not None:
            return {"round": self.round, "of": self.of}
        return {"time_s": self.time_s} if self.time_s is not None else {"bytes": self.sent_bytes}


@dataclass(frozen=True)
class Target:
    """What an occurrence hits: a node, a directed link, or (neither) the run as a whole."""

    #: the node, or the link's source
    node: int | None = None
    #: the link's end
    peer: int | None = None

    def __str__(self) -> str:
        """As it is recorded."""
        if self.node is None:
            return "run"
        return str(self.node) if self.peer is None else f"{self.node}->{self.peer}"


@dataclass(frozen=True)
class Firing:
    """One occurrence of an event."""

    event: str
    occurrence: int
    fault: Fault
    #: the nodes that act: those that are hit, or at whose links
    nodes: tuple[int, ...]
    #: the directed links that are hit, where links are
    arcs: tuple[Arc, ...]
    trigger: Trigger
    span: Span | None

    @property
    def key(self) -> tuple[str, int]:
        """Event and occurrence."""
        return self.event, self.occurrence

    @property
    def targets(self) -> tuple[Target, ...]:
        """What it hits."""
        if self.fault.scope == "run":
            return (Target(),)
        if self.fault.scope == "link":
            return tuple(Target(i, j) for i, j in self.arcs)
        return tuple(map(Target, self.nodes))

    @property
    def outside(self) -> bool:
        """Whether the coordinator brings it about."""
        return isinstance(self.fault, OutsideFault)

    @property
    def own_moment(self) -> bool:
        """Whether each node can tell by itself when it begins."""
        trigger = self.trigger
        return trigger.time_s is not None or (trigger.round is not None and trigger.of == "own")

    @property
    def own_end(self) -> bool:
        """Whether each node can tell by itself when it ends."""
        if self.span is None or self.span.time is not None:
            return True
        return self.span.rounds is not None and self.trigger.of == "own"

    @property
    def armed(self) -> bool:
        """Whether the nodes see to it without the coordinator."""
        return self.own_moment and self.own_end and not self.outside

    @property
    def awaited(self) -> bool:
        """Whether the nodes say when it is time, for the coordinator to bring it about."""
        return self.outside and self.trigger.round is not None and self.trigger.of == "own"

    def at(self, node: int, now: bool = False) -> ArmedFault:
        """A node's part in it; ``now``: to begin on command."""
        trigger, span = (Trigger(), None) if now else (self.trigger, self.span)
        if now and self.own_end:
            span = self.span
        linked = self.fault.scope == "link"
        return ArmedFault(
            event=self.event,
            occurrence=self.occurrence,
            fault=self.fault.config(),
            targets=tuple(j for i, j in self.arcs if i == node) if linked else self.nodes,
            at_s=trigger.time_s,
            at_round=trigger.round,
            for_s=None if span is None or span.time is None else float(span.time),
            for_rounds=None if span is None else span.rounds,
        )
