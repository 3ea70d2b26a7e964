"""The director at work in virtual time."""

from __future__ import annotations

import math

from tidings.runtime.plan import ArmedFault
from tidings.runtime.simulation import Controls
from tidings.v1 import records_pb2 as records
from tidings_coordinator.faults.director import Director, View
from tidings_coordinator.planning import RunPlan
from tidings_coordinator.records.directory import RunDirectory


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

    def begun(self, controls: Controls) -> None:
        """The run begins."""
        if not self._run.firings:
            return
        self._controls = controls
        self._director = Director(
            self._run.firings,
            self._run.honest,
            controls,
            lambda line: self._directory.append("faults", line),
            self.dead,
        )
        self._look()

    @property
    def isolated(self) -> bool:
        """Whether the coordinator is cut off from its nodes."""
        return self._director is not None and self._director.isolated

    def row(self, row: records.Evaluation) -> None:
        """A node was evaluated."""
        if self._director is not None:
            self._director.row(row, self._view())
            self._arm()

    def change(self, change: records.FaultChange) -> None:
        """A node's fault has come or gone."""
        if self._director is not None:
            self._director.change(change, self._view())
            self._arm()

    def arrived(self, node: int, armed: ArmedFault, round_: int) -> None:
        """A node waits to be hit."""
        if self._director is not None:
            event, occurrence = armed.event, armed.occurrence
            self._director.arrived(node, event, occurrence, round_, self._view())
            self._arm()

    def end(self, why: str) -> None:
        """The run is over."""
        if self._director is not None:
            self._director.end(self._view(), why)

    def _view(self) -> View:
        assert self._controls is not None
        nodes = self._controls.nodes
        rounds = {node.id: node.ledger.completed for node in nodes}
        return View(self._controls.now_s, rounds, sum(node.ledger.sent().total for node in nodes))

    def look(self) -> None:
        """See whether something is due that only counting tells."""
        if self._director is not None and not self._director.idle:
            self._director.tick(self._view())

    def _look(self) -> None:
        """Now, and whenever the director asks for it."""
        assert self._director is not None
        self._armed_s = math.inf
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
