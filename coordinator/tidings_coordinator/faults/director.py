"""Brings about what nodes cannot bring about themselves, and keeps the book of all faults.

Pure: it is told what happens (:meth:`Director.tick`, :meth:`row`, :meth:`change`, :meth:`arrived`)
and acts through its :class:`Hands`. The conductor of real nodes and the simulator use the same one.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from tidings.faults.coord_isolate import CoordIsolate
from tidings.faults.node_crash import NodeCrash
from tidings.faults.node_pause import NodePause
from tidings.runtime.plan import ArmedFault
from tidings.v1 import records_pb2 as records
from tidings_coordinator.faults.firing import Firing, Target, Trigger
from tidings_coordinator.records.windows import LEFT

Key = tuple[str, int]
#: why a fault is skipped at a node that another one has killed
DEAD = "the node is dead"
#: times are sums of decimal fractions
_EPSILON_S = 1e-9
State = Literal["active", "recovered", "failed", "skipped"]
#: is told that something is done: when (emulated seconds), and what is known of it
Done = Callable[[float, Mapping[str, Any]], None]


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


@dataclass(frozen=True)
class View:
    """The run as it stands, as far as triggers look at it."""

    time_s: float
    #: rounds that each node has completed
    rounds: Mapping[int, int]
    sent_bytes: int


@dataclass(eq=False)
class _Pending:
    """A firing that has not begun, or not ended."""

    firing: Firing
    began: View | None = None
    #: due at that time, once its other condition is met
    due_s: float | None = None
    held: int = 0


@dataclass
class Director:
    """``write`` takes the lines of faults.jsonl."""

    firings: Sequence[Firing]
    honest: Sequence[int]
    hands: Hands
    write: Callable[[Mapping[str, Any]], None]
    #: nodes that were killed and have not come back
    dead: set[int] = field(default_factory=set)
    #: nodes that have taken their leave
    _left: set[int] = field(default_factory=set)
    _waiting: list[_Pending] = field(default_factory=list)
    _lasting: list[_Pending] = field(default_factory=list)
    _asked: dict[Key, Mapping[str, Any]] = field(default_factory=dict)
    #: (time, node, whether to lose its state)
    _restarts: list[tuple[float, int, bool, Firing]] = field(default_factory=list)
    #: by which firing a node was last started again
    _returns: dict[int, Firing] = field(default_factory=dict)
    #: (target, state) of each, as recorded
    _states: dict[Key, set[tuple[str, str]]] = field(default_factory=dict)
    _metrics: dict[str, dict[int, float]] = field(default_factory=dict)
    #: why nothing is heard of the nodes, and nothing done to them
    _isolation: _Pending | None = None
    #: why the lines are being mended, once they are
    _mended: str | None = None
    #: what it will have been told when it can hear again
    _unheard: list[Callable[[View], None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for firing in self.firings:
            self._asked[firing.key] = firing.trigger.asked()
            if not (firing.armed or firing.awaited):
                self._waiting.append(_Pending(firing))

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
        for name, value in row.metrics.items():
            self._metrics.setdefault(name, {})[row.node] = value
        for pending in self._waiting:
            when = pending.firing.trigger.when
            if when is None or row.node not in self.honest:
                continue
            known = self._metrics.get(when.metric, {})
            living = [node for node in self.honest if node not in self.dead]
            values = [known[node] for node in living if node in known]
            if len(values) == len(living):
                met = when.met(statistics.fmean(values))
                pending.held = pending.held + 1 if met else 0
        self.tick(view)

    def change(self, change: records.FaultChange, view: View) -> None:
        """A node says that a fault has come or gone there."""
        if self.isolated:
            self._unheard.append(lambda then: self.change(change, then))
            return
        key = (change.event, change.occurrence)
        if change.fault in LEFT:
            here = change.state != "active"
            (self._left.discard if here else self._left.add)(change.node)
            self.hands.tell(change.node, here)
        detail = json.loads(change.detail) if change.detail else {}
        self._record(
            key, change.fault, change.target, change.state, (change.time_s, change.round), detail
        )
        self.tick(view)

    def arrived(self, node: int, event: str, occurrence: int, round_: int, view: View) -> None:
        """A node is in the round in which something is to hit it, and waits."""
        if self.isolated:
            self._unheard.append(lambda then: self.arrived(node, event, occurrence, round_, then))
            return
        # it knows better than what was heard of it last
        view = replace(view, rounds={**view.rounds, node: round_})
        firing = next(f for f in self.firings if f.key == (event, occurrence))
        self._hit(firing, node, view)
        if firing.fault.lasting:
            self._lasting.append(_Pending(_alone(firing, node), began=view))

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
            seen = {target for target, _ in self._states.get(firing.key, ())}
            for target in firing.targets:
                if str(target) not in seen:
                    dead = firing.armed and target.node in self.dead
                    reason = {"reason": DEAD} if dead else late
                    self._note(firing, target, "skipped", view, reason)

    def missing(self, node: int, view: View, why: str) -> None:
        """A node that was started again is not back at the end."""
        if node in self._returns:
            detail = {"reason": f"it was not back before {why}"}
            self._note(self._returns[node], Target(node), "failed", view, detail)

    # -- when ----------------------------------------------------------------------------------

    def _due(self, pending: _Pending, view: View) -> bool:
        trigger = pending.firing.trigger
        if trigger.time_s is not None:
            return view.time_s + _EPSILON_S >= trigger.time_s
        if trigger.sent_bytes is not None:
            return view.sent_bytes >= trigger.sent_bytes
        if trigger.when is not None:
            return pending.held >= trigger.when.hold
        if trigger.after is not None:
            states = self._states.get((trigger.after.event, 0), set())
            if pending.due_s is None and any(s == trigger.after.state for _, s in states):
                pending.due_s = view.time_s + float(trigger.after.delay)
            return pending.due_s is not None and view.time_s + _EPSILON_S >= pending.due_s
        return self._round(trigger, view) >= (trigger.round or 0)

    def _round(self, trigger: Trigger, view: View) -> float:
        """The round that counts: of the live nodes."""
        rounds = [r for node, r in view.rounds.items() if node not in self.dead] or [0]
        if trigger.of == "any":
            return max(rounds)
        return min(rounds) if trigger.of == "min" else statistics.median(rounds)

    def _over(self, pending: _Pending, view: View) -> bool:
        span, began = pending.firing.span, pending.began
        if span is None or began is None:
            return False
        if span.time is not None:
            return view.time_s + _EPSILON_S >= began.time_s + float(span.time)
        if span.bytes is not None:
            return view.sent_bytes >= began.sent_bytes + int(span.bytes)
        trigger = pending.firing.trigger
        return self._round(trigger, view) >= self._round(trigger, began) + (span.rounds or 0)

    # -- what it does --------------------------------------------------------------------------

    def _begin(self, pending: _Pending, view: View) -> None:
        firing = pending.firing
        pending.began = view
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
            seen = self._states.get(firing.key, set())
            for target in firing.targets:
                begun = target.node == node and (str(target), "active") in seen
                if begun and (str(target), "recovered") not in seen:
                    self._note(firing, target, "recovered", view, {"why": DEAD})

    def _skip(self, firing: Firing, node: int, view: View) -> None:
        detail = {"reason": DEAD}
        for target in firing.targets:
            if target.node == node:
                self._note(firing, target, "skipped", view, detail)

    def _end(self, pending: _Pending, view: View, why: str | None = None) -> None:
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
        self._record(firing.key, firing.fault.kind, str(target), state, at, detail)

    def _record(
        self,
        key: Key,
        fault: str,
        target: str,
        state: str,
        at: tuple[float, int | None],
        detail: Mapping[str, Any],
    ) -> None:
        self._states.setdefault(key, set()).add((target, state))
        line = {"event": key[0], "occurrence": key[1], "fault": fault, "target": target}
        line |= {"state": state, "time_s": round(at[0], 6), "round": at[1]}
        self.write(line | {"asked": self._asked.get(key), "detail": dict(detail)})


def _end_s(pending: _Pending) -> float | None:
    """When it ends, where that is a time."""
    span = pending.firing.span
    if pending.began is None or span is None or span.time is None:
        return None
    return pending.began.time_s + float(span.time)


def _alone(firing: Firing, node: int) -> Firing:
    """The part of a firing that hits one node."""
    return replace(firing, nodes=(node,))
