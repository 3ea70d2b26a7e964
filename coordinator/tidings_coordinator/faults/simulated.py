"""The director at work in virtual time."""

from __future__ import annotations

import math

from tidings.runtime.plan import ArmedFault
from tidings.runtime.simulation import Controls
from tidings.v1 import records_pb2 as records
from tidings_coordinator.faults.director import Director, Hands, View
from tidings_coordinator.planning import RunPlan
from tidings_coordinator.records.directory import RunDirectory


class SimulatedHands(Hands):
    """Acts on the nodes of a simulated run."""

    def __init__(self, controls: Controls) -> None:
        self._controls = controls

    def begin(self, node: int, armed: ArmedFault) -> None:
        """As Hands.begin."""
        self._controls.begin(node, armed)

    def heal(self, node: int, event: str, occurrence: int) -> None:
        """As Hands.heal."""
        self._controls.heal(node, event, occurrence)

    def kill(self, node: int) -> None:
        """As Hands.kill."""
        self._controls.kill(node)

    def pause(self, node: int, event: str) -> None:
        """As Hands.pause."""
        self._controls.pause(node, event)

    def resume(self, node: int, event: str) -> None:
        """As Hands.resume."""
        self._controls.resume(node, event)

    def restart(self, node: int, lose_state: bool) -> None:
        """As Hands.restart."""
        self._controls.restart(node, lose_state)

    def tell(self, node: int, present: bool) -> None:
        """As Hands.tell."""
        self._controls.tell(node, present)


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
            SimulatedHands(controls),
            lambda line: self._directory.append("faults", line),
            self.dead,
        )
        self._look()

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
