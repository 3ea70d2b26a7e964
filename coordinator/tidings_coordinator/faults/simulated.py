"""The director at work in virtual time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeVar

from tidings.faults.coord_crash import CoordCrash
from tidings.runtime.plan import ArmedFault
from tidings.runtime.simulation import Controls
from tidings.v1 import records_pb2 as records
from tidings_coordinator.faults.director import Director
from tidings_coordinator.faults.hands import View
from tidings_coordinator.faults.successor import Successor
from tidings_coordinator.planning import RunPlan
from tidings_coordinator.records.directory import RunDirectory, read_lines

D = TypeVar("D", bound=Director)


class SimulatedFaults:
    """Looks at a simulated run on the director's behalf. Without firings it does nothing."""

    def __init__(self, run: RunPlan, directory: RunDirectory) -> None:
        self._run = run
        self._directory = directory
        self._controls: Controls | None = None
        self._director: Director | None = None
        #: the nodes that were killed, as long as they are dead
        self.dead: set[int] = set()
        #: when it is called next
        self._armed_s = math.inf
        #: whether the coordinator is dead
        self._absent = False
        #: what nodes have said and will say again, where it may die
        self._mortal = any(isinstance(firing.fault, CoordCrash) for firing in run.firings)
        self._changes: list[records.FaultChange] = []
        self._arrivals: list[tuple[int, ArmedFault, int]] = []

    def begun(self, controls: Controls) -> None:
        """The run begins."""
        if not self._run.firings:
            return
        self._controls = controls
        controls.crash = self._crashed
        self._director = self._made(Director)
        self._look()

    def _made(self, kind: type[D]) -> D:
        assert self._controls is not None

        def write(line: Mapping[str, Any]) -> None:
            self._directory.append("faults", line)

        return kind(self._run.firings, self._run.honest, self._controls, write, self.dead)

    # -- the coordinator dies ------------------------------------------------------------------

    def _crashed(self, after_s: float) -> None:
        """What the director knew is lost, and another one takes over later."""
        assert self._controls is not None
        self._absent = True
        self._controls.at(self._controls.now_s + after_s, self._succeed)

    def _succeed(self) -> None:
        """All that is known is what is written down, and what nodes say again."""
        self._absent = False
        self.dead.clear()
        self._director = successor = self._made(Successor)
        path = self._directory.path
        successor.recall(read_lines(path, "faults"), read_lines(path, "series"))
        view = self._view()
        for change in self._changes:
            successor.change(change, view)
        for node, armed, round_ in self._arrivals:
            successor.arrived(node, armed.event, armed.occurrence, round_, view)
        successor.settle(view)
        self._armed_s = math.inf
        self._arm()

    @property
    def isolated(self) -> bool:
        """Whether the coordinator is cut off from its nodes, or dead."""
        return self._absent or (self._director is not None and self._director.isolated)

    def row(self, row: records.Evaluation) -> None:
        """A node was evaluated."""
        if self._director is not None and not self._absent:
            self._director.row(row, self._view())
            self._arm()

    def change(self, change: records.FaultChange) -> None:
        """A node's fault has come or gone."""
        if self._mortal:
            self._changes.append(change)
        if self._director is not None and not self._absent:
            self._director.change(change, self._view())
            self._arm()

    def arrived(self, node: int, armed: ArmedFault, round_: int) -> None:
        """A node waits to be hit."""
        if self._mortal:
            self._arrivals.append((node, armed, round_))
        if self._director is not None and not self._absent:
            event, occurrence = armed.event, armed.occurrence
            self._director.arrived(node, event, occurrence, round_, self._view())
            self._arm()

    def end(self, why: str) -> None:
        """The run is over."""
        if self._absent:
            self._succeed()
        if self._director is not None:
            self._director.end(self._view(), why)

    def _view(self) -> View:
        assert self._controls is not None
        nodes = self._controls.nodes
        rounds = {node.id: node.ledger.completed for node in nodes}
        return View(self._controls.now_s, rounds, sum(node.ledger.sent().total for node in nodes))

    def look(self) -> None:
        """See whether something is due that only counting tells."""
        if self._director is not None and not (self._director.idle or self._absent):
            self._director.tick(self._view())

    def _look(self) -> None:
        """Now, and whenever the director asks for it."""
        assert self._director is not None
        self._armed_s = math.inf
        if self._absent:
            return
        self._director.tick(self._view())
        self._arm()

    def _arm(self) -> None:
        """Be called when the director wants to be, if nothing is due earlier."""
        assert self._controls is not None
        assert self._director is not None
        next_s = self._director.next_s()
        if next_s is not None and next_s < self._armed_s:
            self._armed_s = next_s
            self._controls.at(next_s, self._look)
