"""A director that takes the place of another one, whose coordinator was killed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from tidings.faults.coord_crash import CoordCrash
from tidings.faults.coord_isolate import CoordIsolate
from tidings.faults.node_crash import NodeCrash
from tidings.faults.node_pause import NodePause
from tidings_coordinator.faults.book import Line
from tidings_coordinator.faults.director import Director, Pending, alone
from tidings_coordinator.faults.firing import Firing, Target
from tidings_coordinator.faults.hands import View
from tidings_coordinator.records.windows import LEFT, PAUSED


@dataclass
class Successor(Director):
    """Knows of what was before it what is written down, and nothing else."""

    #: whether it is still being told what was before it
    _recalling: bool = True
    #: nodes that stand still, and those that did
    paused: set[int] = field(default_factory=set)
    thawed: set[int] = field(default_factory=set)
    #: what was to be known of nodes that have left, or are back
    _news: dict[int, bool] = field(default_factory=dict)
    #: who has come where, which may have been acted upon
    _here: list[tuple[int, str, int, int]] = field(default_factory=list)

    def tick(self, view: View) -> None:
        """As Director.tick, once it knows all."""
        if not self._recalling:
            super().tick(view)

    def arrived(self, node: int, event: str, occurrence: int, round_: int, view: View) -> None:
        """As Director.arrived, once it knows all."""
        if self._recalling:
            self._here.append((node, event, occurrence, round_))
        else:
            super().arrived(node, event, occurrence, round_, view)

    def recall(self, lines: Iterable[Line], rows: Iterable[Line]) -> None:
        """Know what another director has done: the lines of faults.jsonl and of series.jsonl.

        Nothing is done before :meth:`settle`, so that nodes can say first what nobody has heard.
        """
        past = [(line["time_s"], line) for line in lines] + [(row["time_s"], row) for row in rows]
        for _, line in sorted(past, key=lambda entry: entry[0]):
            if "event" in line:
                self._recall(line)
            else:
                self._count(line["node"], line["metrics"])

    def _recall(self, line: Line) -> None:
        self._book.recall(line)
        began = line["state"] == "active"
        if line["fault"] in PAUSED and line["state"] != "skipped":
            still, others = self.paused, self.thawed
            (still if began else others).add(int(line["target"]))
            (others if began else still).discard(int(line["target"]))
        if line["fault"] in LEFT and line["state"] in ("active", "recovered"):
            self._news[int(line["target"])] = not began
            (self._left.add if began else self._left.discard)(int(line["target"]))
        firing = self._of(line["event"], line["occurrence"])
        if not isinstance(firing.fault, NodeCrash) or line["state"] == "skipped":
            return
        node, after = int(line["target"]), firing.fault.restart_after
        (self.dead.add if began else self.dead.discard)(node)
        self._restarts = [entry for entry in self._restarts if entry[1] != node]
        if line["state"] == "recovered":
            self._returns[node] = firing
        if began and after is not None:
            at_s = line["time_s"] + float(after)
            self._restarts.append((at_s, node, firing.fault.lose_state, firing))

    def settle(self, view: View) -> None:
        """Go on where the other one was stopped; what it may not have come to do is done again."""
        self._recalling = False
        come_back = {entry[1] for entry in self._restarts}
        for node in sorted(self.dead):
            self.hands.kill(node, node in come_back)
        for node, here in self._news.items():
            self.hands.tell(node, here)
        for firing in self.firings:
            pending = next((p for p in self._waiting if p.firing is firing), None)
            if pending is not None and self._book.began(firing.key):
                self._waiting.remove(pending)
                missed = {
                    target.node
                    for target in firing.targets
                    if target.node is not None and not self._book.seen(firing.key, target)
                }
                if missed:
                    self._waiting.append(Pending(alone(firing, *sorted(missed)), overdue=True))
            if not firing.armed:
                self._take_up(firing, view)
            for node in firing.nodes if firing.awaited and firing.fault.lasting else ():
                if "recovered" in self._book.seen(firing.key, Target(node)):
                    self.hands.heal(node, *firing.key)
        for arrival in self._here:
            self.arrived(*arrival, view)
        self.tick(view)

    def _take_up(self, firing: Firing, view: View) -> None:
        """See to the end of what holds, where that is not the nodes' own matter."""
        holds = list(self._book.lasting(firing))
        if not holds:
            return
        since_s = min(line["time_s"] for _, line in holds)
        if firing.fault.scope == "run":
            if isinstance(firing.fault, CoordCrash | CoordIsolate):
                detail = {"away_s": round(view.time_s - since_s, 6)}
                self._note(firing, Target(), "recovered", view, detail)
            return
        if firing.fault.lasting and (firing.outside or not firing.own_end):
            counted = self._book.counted_from.get(firing.key, {"round": 0, "bytes": 0})
            nodes = sorted({target.node for target, _ in holds if target.node is not None})
            began = View(since_s, {}, int(counted["bytes"]))
            self._lasting.append(Pending(alone(firing, *nodes), began, counted["round"]))
            for node in nodes if isinstance(firing.fault, NodePause) else ():
                self.hands.pause(node, firing.event)
