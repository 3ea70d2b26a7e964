"""Brings about what nodes cannot bring about themselves, and keeps the book of all faults.

Pure: it is told what happens (:meth:`Director.tick`, :meth:`row`, :meth:`change`, :meth:`arrived`)
and acts through its :class:`Hands`. The conductor of real nodes and the simulator use the same one.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tidings.faults.coord_crash import CoordCrash
from tidings.faults.coord_isolate import CoordIsolate
from tidings.faults.node_crash import NodeCrash
from tidings.faults.node_pause import NodePause
from tidings.v1 import records_pb2 as records
from tidings_coordinator.faults.book import Book, Line, State
from tidings_coordinator.faults.firing import Firing, Target, Trigger
from tidings_coordinator.faults.hands import Done, Hands, View
from tidings_coordinator.records.windows import LEFT

__all__ = ["DEAD", "Director", "Done", "Hands", "View"]

#: why a fault is skipped at a node that another one has killed
DEAD = "the node is dead"
#: times are sums of decimal fractions
_EPSILON_S = 1e-9


@dataclass(eq=False)
class Pending:
    """A firing that has not begun, or not ended."""

    firing: Firing
    began: View | None = None
    #: the round that counted then
    from_round: float = 0.0
    #: due at that time, once its other condition is met
    due_s: float | None = None
    held: int = 0
    #: whether its moment has come before
    overdue: bool = False


@dataclass
class Director:
    """``write`` takes the lines of faults.jsonl."""

    firings: Sequence[Firing]
    honest: Sequence[int]
    hands: Hands
    write: Callable[[Line], object]
    #: nodes that were killed and have not come back
    dead: set[int] = field(default_factory=set)
    #: nodes that have taken their leave
    _left: set[int] = field(default_factory=set)
    _waiting: list[Pending] = field(default_factory=list)
    _lasting: list[Pending] = field(default_factory=list)
    #: (time, node, whether to lose its state)
    _restarts: list[tuple[float, int, bool, Firing]] = field(default_factory=list)
    #: by which firing a node was last started again
    _returns: dict[int, Firing] = field(default_factory=dict)
    _metrics: dict[str, dict[int, float]] = field(default_factory=dict)
    #: why nothing is heard of the nodes, and nothing done to them
    _isolation: Pending | None = None
    #: why the lines are being mended, once they are
    _mended: str | None = None
    #: what it will have been told when it can hear again
    _unheard: list[Callable[[View], None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._book = Book(self.firings, self.write)
        for firing in self.firings:
            if not (firing.armed or firing.awaited):
                self._waiting.append(Pending(firing))

    @property
    def idle(self) -> bool:
        """Whether nothing is left to do but to take down what the nodes say."""
        return not (self._waiting or self._lasting or self._restarts or self.isolated)

    @property
    def isolated(self) -> bool:
        """Whether the coordinator is cut off from its nodes."""
        return self._isolation is not None

    # -- what it is told -----------------------------------------------------------------------

    def next_s(self) -> float | None:
        """When, at the latest, it wants to be called again, as far as it knows."""
        if self._isolation is not None:
            return None if self._mended is not None else _end_s(self._isolation)
        times = [p.firing.trigger.time_s for p in self._waiting] + [p.due_s for p in self._waiting]
        times += [at_s for at_s, *_ in self._restarts]
        times += map(_end_s, self._lasting)
        return min((time_s for time_s in times if time_s is not None), default=None)

    def tick(self, view: View) -> None:
        """Do what is due. What is done may be answered at once, which leads here again."""
        if self._isolation is not None and self._over(self._isolation, view):
            self.mend()
        if self._isolation is not None:
            return
        unheard, self._unheard = self._unheard, []
        for tell in unheard:
            tell(view)
        for entry in [entry for entry in self._restarts if entry[0] <= view.time_s + _EPSILON_S]:
            if entry in self._restarts:
                self._restarts.remove(entry)
                self._come_back(view, *entry[1:])
        for pending in [p for p in self._lasting if self._over(p, view)]:
            if pending in self._lasting:
                self._end(pending, view)
        # in the order of the file where several are due together
        for pending in [p for p in self._waiting if self._due(p, view)]:
            if pending in self._waiting and not self.isolated:
                self._waiting.remove(pending)
                self._begin(pending, view)

    def row(self, row: records.Evaluation, view: View) -> None:
        """A node was evaluated."""
        if self.isolated:
            self._unheard.append(lambda then: self.row(row, then))
            return
        self._count(row.node, row.metrics)
        self.tick(view)

    def _count(self, node: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._metrics.setdefault(name, {})[node] = value
        for pending in self._waiting:
            when = pending.firing.trigger.when
            if when is None or node not in self.honest or pending.held >= when.hold:
                continue
            known = self._metrics.get(when.metric, {})
            living = [node for node in self.honest if node not in self.dead]
            values = [known[node] for node in living if node in known]
            if len(values) == len(living):
                met = when.met(statistics.fmean(values))
                pending.held = pending.held + 1 if met else 0

    def change(self, change: records.FaultChange, view: View) -> None:
        """A node says that a fault has come or gone there."""
        if self.isolated:
            self._unheard.append(lambda then: self.change(change, then))
            return
        key = (change.event, change.occurrence)
        if self._book.knows(key, change.target, change.state, change.time_s):
            # it was said to another coordinator
            return
        if change.fault in LEFT:
            here = change.state != "active"
            (self._left.discard if here else self._left.add)(change.node)
            self.hands.tell(change.node, here)
        at = (change.time_s, change.round)
        detail = json.loads(change.detail) if change.detail else {}
        self._book.record(key, change.fault, change.target, change.state, at, detail)
        self.tick(view)

    def arrived(self, node: int, event: str, occurrence: int, round_: int, view: View) -> None:
        """A node is in the round in which something is to hit it, and waits."""
        if self.isolated:
            self._unheard.append(lambda then: self.arrived(node, event, occurrence, round_, then))
            return
        # it knows better than what was heard of it last
        view = replace(view, rounds={**view.rounds, node: round_})
        firing = self._of(event, occurrence)
        if self._book.seen(firing.key, Target(node)):
            # by another coordinator
            return
        self._hit(firing, node, view)
        if firing.fault.lasting:
            self._lasting.append(Pending(alone(firing, node), began=view))

    def mend(self, why: str = "") -> None:
        """End the isolation; it is over when the hands say that all nodes can be heard."""
        if self._isolation is not None and self._mended is None:
            self._mended = why
            self.hands.listen(self._heard_again)

    def end(self, view: View, why: str) -> None:
        """The run is over: heal what still lasts, and write down what never began."""
        self.mend(why)
        self.tick(view)
        for pending in list(self._lasting):
            self._end(pending, view, why)
        late = {"reason": f"its moment did not come before {why}"}
        for firing in self.firings:
            for target in firing.targets:
                if not self._book.seen(firing.key, target):
                    dead = firing.armed and target.node in self.dead
                    reason = {"reason": DEAD} if dead else late
                    self._note(firing, target, "skipped", view, reason)

    def missing(self, node: int, view: View, why: str) -> None:
        """A node that was started again is not back at the end."""
        if node in self._returns:
            detail = {"reason": f"it was not back before {why}"}
            self._note(self._returns[node], Target(node), "failed", view, detail)

    # -- when ----------------------------------------------------------------------------------

    def _of(self, event: str, occurrence: int) -> Firing:
        return next(firing for firing in self.firings if firing.key == (event, occurrence))

    def _due(self, pending: Pending, view: View) -> bool:
        trigger = pending.firing.trigger
        if pending.overdue:
            return True
        if trigger.time_s is not None:
            return view.time_s + _EPSILON_S >= trigger.time_s
        if trigger.sent_bytes is not None:
            return view.sent_bytes >= trigger.sent_bytes
        if trigger.when is not None:
            return pending.held >= trigger.when.hold
        if trigger.after is not None:
            first_s = self._book.first_s((trigger.after.event, 0), trigger.after.state)
            if pending.due_s is None and first_s is not None:
                pending.due_s = first_s + float(trigger.after.delay)
            return pending.due_s is not None and view.time_s + _EPSILON_S >= pending.due_s
        return self._round(trigger, view) >= (trigger.round or 0)

    def _round(self, trigger: Trigger, view: View) -> float:
        """The round that counts: of the live nodes."""
        rounds = [r for node, r in view.rounds.items() if node not in self.dead] or [0]
        if trigger.of == "any":
            return max(rounds)
        return min(rounds) if trigger.of == "min" else statistics.median(rounds)

    def _over(self, pending: Pending, view: View) -> bool:
        span, began = pending.firing.span, pending.began
        if span is None or began is None:
            return False
        if span.time is not None:
            return view.time_s + _EPSILON_S >= began.time_s + float(span.time)
        if span.bytes is not None:
            return view.sent_bytes >= began.sent_bytes + int(span.bytes)
        now = self._round(pending.firing.trigger, view)
        return now >= pending.from_round + (span.rounds or 0)

    # -- what it does --------------------------------------------------------------------------

    def _begin(self, pending: Pending, view: View) -> None:
        firing = pending.firing
        pending.began, pending.from_round = view, self._round(firing.trigger, view)
        if firing.span is not None and firing.span.time is None:
            # where the others of its targets began, if another director did that
            here = {"round": pending.from_round, "bytes": view.sent_bytes}
            counted = self._book.counted_from.setdefault(firing.key, here)
            pending.from_round = counted["round"]
            pending.began = replace(view, sent_bytes=int(counted["bytes"]))
        if isinstance(firing.fault, CoordCrash):
            after_s = float(firing.fault.restart_after)
            detail = {"how": "SIGKILL", "restart_after_s": after_s}
            self._note(firing, Target(), "active", view, detail)
            self._isolation = pending
            self.hands.crash(after_s)
            return
        if isinstance(firing.fault, CoordIsolate):
            # it lasts from when it is so
            self._isolation, pending.began = pending, None
            self.hands.hang_up(self._hung_up)
            return
        if firing.fault.scope == "run":
            self._note(firing, Target(), "active", view, {})
            return
        for node in firing.nodes:
            if firing.outside:
                self._hit(firing, node, view)
            elif node in self.dead:
                self._skip(firing, node, view)
            else:
                self.hands.begin(node, firing.at(node, now=True))
        if firing.fault.lasting and (firing.outside or not firing.own_end):
            self._lasting.append(pending)

    def _hit(self, firing: Firing, node: int, view: View) -> None:
        """Bring about a fault from outside."""
        fault = firing.fault
        if node in self.dead:
            self._skip(firing, node, view)
        elif isinstance(fault, NodeCrash):
            self.dead.add(node)
            self.hands.kill(node, fault.restart_after is not None)
            self._note(firing, Target(node), "active", view, {"how": "SIGKILL"})
            self._end_with(node, view)
            if fault.restart_after is not None:
                back_s = view.time_s + float(fault.restart_after)
                self._restarts.append((back_s, node, fault.lose_state, firing))
        elif isinstance(fault, NodePause):
            self.hands.pause(node, firing.event)
            self._note(firing, Target(node), "active", view, {"how": "SIGSTOP"})

    def _hung_up(self, time_s: float, detail: Mapping[str, Any]) -> None:
        assert self._isolation is not None
        self._isolation.began = view = View(time_s, {}, 0)
        self._note(self._isolation.firing, Target(), "active", view, detail)

    def _heard_again(self, time_s: float, detail: Mapping[str, Any]) -> None:
        assert self._isolation is not None
        firing, why = self._isolation.firing, self._mended
        self._isolation = self._mended = None
        detail = dict(detail) | ({"why": why} if why else {})
        self._note(firing, Target(), "recovered", View(time_s, {}, 0), detail)

    def _end_with(self, node: int, view: View) -> None:
        """What a node does to itself is over with its death, which it cannot say any more."""
        for firing in self.firings:
            if firing.outside or not firing.fault.lasting:
                continue
            for target, _ in list(self._book.lasting(firing)):
                if target.node == node:
                    self._note(firing, target, "recovered", view, {"why": DEAD})

    def _skip(self, firing: Firing, node: int, view: View) -> None:
        detail = {"reason": DEAD}
        for target in firing.targets:
            if target.node == node:
                self._note(firing, target, "skipped", view, detail)

    def _end(self, pending: Pending, view: View, why: str | None = None) -> None:
        if pending in self._lasting:
            self._lasting.remove(pending)
        firing = pending.firing
        detail = {} if why is None else {"why": why}
        for node in firing.nodes:
            if node in self.dead:
                continue
            if firing.outside:
                self.hands.resume(node, firing.event)
                if firing.awaited:
                    # the node has been waiting for this since it arrived
                    self.hands.heal(node, *firing.key)
                self._note(firing, Target(node), "recovered", view, detail)
            else:
                self.hands.heal(node, *firing.key)

    def _come_back(self, view: View, node: int, lose_state: bool, firing: Firing) -> None:
        self.hands.restart(node, lose_state)
        self._returns[node] = firing
        self.dead.discard(node)
        if node in self._left:
            # it says so again, if it is to
            self._left.discard(node)
            self.hands.tell(node, True)
        self._note(firing, Target(node), "recovered", view, {"lose_state": lose_state})

    def _note(
        self, firing: Firing, target: Target, state: State, view: View, detail: Mapping[str, Any]
    ) -> None:
        """Write down what was done here."""
        round_ = None
        if target.node is not None and target.peer is None:
            round_ = view.rounds.get(target.node)
        at = (view.time_s, round_)
        self._book.record(firing.key, firing.fault.kind, str(target), state, at, detail)


def _end_s(pending: Pending) -> float | None:
    """When it ends, where that is a time."""
    span = pending.firing.span
    if pending.began is None or span is None or span.time is None:
        return None
    return pending.began.time_s + float(span.time)


def alone(firing: Firing, *nodes: int) -> Firing:
    """The part of a firing in which some nodes act."""
    arcs = tuple((i, j) for i, j in firing.arcs if i in nodes)
    return replace(firing, nodes=nodes, arcs=arcs)
