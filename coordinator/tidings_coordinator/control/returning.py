"""Brings nodes back that have died: same seat, new process, new incarnation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tidings.errors import BarrierTimeout, RunError
from tidings.v1 import control_pb2 as pb
from tidings_coordinator.control.entrance import Entrance
from tidings_coordinator.control.server import ControlServer, Session
from tidings_coordinator.launchers.base import NodeGroup
from tidings_coordinator.planning import RunPlan

#: wall seconds for each step of a return, and for the death before it, which is a matter of moments
_STEP_S, _DEATH_S = 60.0, 20.0


class Returning:
    """The returns of one run. ``now_s`` is its emulated time, ``event`` writes into its log."""

    def __init__(
        self,
        run: RunPlan,
        group: NodeGroup,
        server: ControlServer,
        entrance: Entrance,
        event: Callable[..., None],
        now_s: Callable[[], float],
    ) -> None:
        self._run = run
        self._group = group
        self._server = server
        self._entrance = entrance
        self._event = event
        self._now_s = now_s
        #: where nodes were that are not back yet
        self._places: dict[int, str] = {}
        self._incarnations = {plan.node: plan.incarnation for plan in run.nodes}
        #: nodes whose death is no failure: they are dead, or on their way back
        self.away: set[int] = set()
        #: nodes whose return another coordinator has begun and not seen through; lose their state?
        self.broken_off: dict[int, bool] = {}

    def recall(self, events: Iterable[Mapping[str, Any]]) -> dict[int, bool]:
        """Know which returns another coordinator has brought about; those that it broke off."""
        for event in events:
            if event["event"] == "restarting":
                self._incarnations[event["node"]] = event["incarnation"]
                self.broken_off[event["node"]] = event["lose_state"]
            elif event["event"] == "returned":
                self.broken_off.pop(event["node"], None)
        return self.broken_off

    def expect(self, node: int) -> None:
        """A node is to die and to come back: whoever takes its seat too early has to wait."""
        if self._entrance.enrolment is not None:
            self._entrance.enrolment.expect(node)
        self._server.expect(node)

    async def until_dead(self, node: int) -> None:
        """Until a node that was killed has died; RunError where it lives on."""
        session = self._server.sessions[node]
        await self._until(node, "die", lambda: session.gone, _DEATH_S)

    async def restart(self, node: int, lose_state: bool = False) -> None:
        """Start a node that has died again, and see it through until it runs.

        From its last checkpoint, or from nothing. Neighbours are told where it is to be found.
        RunError where it does not come back, or has not died.
        """
        await self.until_dead(node)
        self.away.add(node)
        if self._entrance.enrolment is not None:
            # its key has died with it
            self._entrance.enrolment.reopen(node)
        before = self._server.sessions[node].listening
        if before is not None:
            self._places[node] = before.data_address
        session = self._server.renew(node)
        self._incarnations[node] += 1
        incarnation = self._incarnations[node]
        self._event("restarting", node, incarnation=incarnation, lose_state=lose_state)
        await self._group.restart(node)
        within_s = max(_STEP_S, self._run.experiment.launcher.join_s)
        await self._until(node, "join", lambda: session.hello is not None, within_s)
        plan = self._run.nodes[node].model_copy(
            update={
                "incarnation": self._incarnations[node],
                "restore": None if lose_state else "last",
                "resumed": False,
            }
        )
        session.send(pb.CoordinatorMessage(assignment=pb.Assignment(plan=plan.model_dump_json())))
        await self._until(node, "listen", lambda: session.listening is not None)
        self._introduce(session)
        await self._until(node, "connect to its neighbours", lambda: session.ready is not None)
        session.send(pb.CoordinatorMessage(start=pb.Start(time_s=self._now_s())))
        self.away.discard(node)
        assert session.ready is not None
        self._event("returned", node, unreachable=dict(session.ready.unreachable))

    def _introduce(self, session: Session) -> None:
        """Tell the node of its neighbours, and them of it."""
        assert session.listening is not None
        self._places.pop(session.node, None)
        here = {s.node: s.listening.data_address for s in self._server.sessions.values()
                if s.listening is not None}  # fmt: skip
        places = self._places | here
        links = self._run.nodes[session.node].links
        # another coordinator's nodes that are not back yet are nowhere
        known = {target: places[target] for target in links if target in places}
        session.send(pb.CoordinatorMessage(peers=pb.Peers(addresses=known)))
        news = pb.Peers(addresses={session.node: session.listening.data_address})
        for plan in self._run.nodes:
            if session.node in plan.links:
                self._server.sessions[plan.node].send(pb.CoordinatorMessage(peers=news))

    async def _until(
        self, node: int, what: str, done: Callable[[], Any], within_s: float = _STEP_S
    ) -> None:
        deadline = time.monotonic() + within_s
        while not done():
            self._server.changed.clear()
            failure = self._server.sessions[node].failure
            if failure is not None:
                raise RunError(f"node {node} failed on its return: {failure.error}")
            if time.monotonic() > deadline:
                raise BarrierTimeout(f"node {node} was to {what}, and did not in {within_s:g} s")
            await self._server.wait(1.0)
