"""Conducts a run of real nodes: join, plan, connect, measure, start, watch, stop, collect."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from tidings.errors import BarrierTimeout, NodeDied, RecordError, RunError
from tidings.v1 import control_pb2 as pb
from tidings.v1 import records_pb2 as records
from tidings_coordinator.control.closing import close_links, until_all
from tidings_coordinator.control.conducted import Conducted, Progress
from tidings_coordinator.control.entrance import Entrance
from tidings_coordinator.control.measuring import check_open, judged, measure
from tidings_coordinator.control.ordering import order_of
from tidings_coordinator.control.refusals import Refusals
from tidings_coordinator.control.returning import Returning
from tidings_coordinator.control.server import ControlServer, Session
from tidings_coordinator.control.stopping import StopRule
from tidings_coordinator.control.stuck import Stuck
from tidings_coordinator.control.watch import NodeView, RunView, Watcher
from tidings_coordinator.faults.conducted import ConductedFaults
from tidings_coordinator.launchers.base import Exit, NodeGroup
from tidings_coordinator.planning import RunPlan
from tidings_coordinator.records.directory import RunDirectory, read_lines
from tidings_coordinator.records.standing import standing

#: wall seconds for each step before the start, and for winding up
_STEP_S = 120.0
_FINISH_S = 60.0
_SHOW_S = 0.25
_EXIT_NEWS_S = 3.0


class Conductor:
    """One run. ``abort`` (for Ctrl-C) may be called at any time from the same loop."""

    def __init__(
        self,
        run: RunPlan,
        group: NodeGroup,
        directory: RunDirectory,
        watcher: Watcher,
        adopting: bool = False,
    ) -> None:
        self._run = run
        self._group = group
        self._directory = directory
        self._watcher = watcher
        self._launcher = run.experiment.launcher
        refusals = Refusals(self._event)
        anonymous = self._launcher.anonymous
        self._server = ControlServer(run.run, len(run.nodes), anonymous, refusals)
        self._server.adopting = adopting
        self._entrance = Entrance(run, self._server, refusals, directory.path)
        self.returning = Returning(
            run, group, self._server, self._entrance, self._event, self._now_s
        )
        self._rule = StopRule(run.experiment.stop, run.honest)
        self._faults = ConductedFaults(
            run, group, self._server, directory, self._now_s, self.returning
        )
        self._rule.dead = self._faults.dead
        self._view = RunView(
            run.experiment.name,
            target_rounds=run.experiment.stop.rounds,
            nodes={node.node: NodeView() for node in run.nodes},
            honest=run.honest,
        )
        self._state = Progress()
        self._stuck = Stuck(self._scale)
        self._aborted: str | None = None
        #: nodes of whose death a coordinator that was killed has heard
        self._mourned: set[int] = set()

    def abort(self, reason: str) -> None:
        """End the run at the next opportunity."""
        self._aborted = reason
        self._server.changed.set()

    def targets(self) -> dict[int, str]:
        """Metrics addresses of the nodes that can be scraped now."""
        return {
            session.node: session.listening.metrics_address
            for session in self._sessions
            if session.listening is not None
            and session.listening.metrics_address
            and not session.gone
        }

    @property
    def _sessions(self) -> list[Session]:
        return list(self._server.sessions.values())

    @property
    def _scale(self) -> float:
        return self._run.experiment.network.time_scale

    async def conduct(self, host: str, discovery: str = "") -> Conducted:
        """Run to the end, listening on ``host``, whatever happens; leaves no node behind."""
        error: RunError | None = None
        try:
            address = await self._entrance.open(host, self._watcher)
            if self._server.adopting:
                await self._adopt(address)
            else:
                await self._prepare(address, discovery)
            await self._until_over()
        except RunError as caught:
            error = caught
        try:
            if not isinstance(error, RecordError):
                self._event("over", reason=str(error) if error else self._state.reason)
                await self._collect()
        except RunError as caught:
            error = error or caught
        finally:
            self._show("ending")
            try:
                await self._group.stop()
            except RunError as caught:
                # there is a result all the same
                error = error or caught
            await self._entrance.close()
        finals = [s.final for s in self._sessions if s.final is not None]
        return Conducted(
            finals,
            self._state.measured,
            self._state.ended,
            self._server.size_bytes,
            self._state.reason,
            error,
            self._entrance.report(),
        )

    # -- before the start --------------------------------------------------------------------------

    async def _prepare(self, address: str, discovery: str) -> None:
        run = self._run
        self._event("launching", run=run.run, coordinator=address)
        self._show("starting nodes")
        if self._launcher.anonymous:
            self._watcher.say(
                f"waiting for {len(run.nodes)} nodes at {address}; "
                f"{self._entrance.invitation} has what they need in their environment"
            )
        order = order_of(run, address, self._directory.path, discovery, self._entrance.join)
        await self._unless_aborted(self._group.start(order))
        await self._barrier("join", lambda s: s.hello is not None, within_s=self._launcher.join_s)
        self._group.joined({s.node: s.hello.pid for s in self._sessions if s.hello is not None})
        self._show("planning")
        for session in self._sessions:
            plan = run.nodes[session.node].model_dump_json()
            session.send(pb.CoordinatorMessage(assignment=pb.Assignment(plan=plan)))
        await self._barrier("listen", lambda s: s.listening is not None)
        self._show("connecting")
        for session in self._sessions:
            session.send(pb.CoordinatorMessage(peers=pb.Peers(addresses=self._peers(session))))
        await self._barrier("connect to their neighbours", lambda s: s.ready is not None)
        check_open(self._sessions)
        self._event("connected", links=len(run.links))
        if run.experiment.network.probe:
            self._show("measuring links")
            await measure(run, self._server, self._barrier)
            self._state.measured = judged(self._run, self._server, self._watcher)
            self._event("measured", links=sum(len(s.results) for s in self._sessions))
        for session in self._sessions:
            session.send(pb.CoordinatorMessage(start=pb.Start(time_s=run.start_s)))
        self._state.started = time.monotonic()
        self._event("started")

    async def _adopt(self, address: str) -> None:
        """Find the nodes of a coordinator that was lost; they say all that they have said again."""
        self._show("looking for the nodes")
        path = self._directory.path
        for line in standing(path, "series"):
            row = {key: line[key] for key in ("node", "round", "metrics")}
            self._take_row(records.Evaluation(**row))
        for event in read_lines(path, "events"):
            if event["event"] in ("died", "returned"):
                lost = event["event"] == "died"
                (self._mourned.add if lost else self._mourned.discard)(event["node"])
        await self._group.adopt(order_of(self._run, address, path, "", self._entrance.join))
        absent = self._faults.recall(path)
        await self._barrier(
            "come back",
            lambda s: s.heartbeat is not None or s.final is not None,
            [session for session in self._sessions if session.node not in absent],
            within_s=self._run.grace_s,
        )
        self._state.measured = judged(self._run, self._server, self._watcher)
        times_s = [s.heartbeat.time_s for s in self._sessions if s.heartbeat is not None]
        past_s = max(times_s, default=0.0) - self._run.start_s
        self._state.started = time.monotonic() - past_s * self._scale
        self._event("adopted")
        self._faults.settle()

    async def _unless_aborted(self, work: Coroutine[Any, Any, None]) -> None:
        """See some work through; RunError, with the work cancelled, if the user has had enough."""
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                self._server.changed.clear()
                self._raise_if_broken()
                heard = asyncio.ensure_future(self._server.changed.wait())
                await asyncio.wait([task, heard], return_when=asyncio.FIRST_COMPLETED)
                heard.cancel()
            task.result()
        finally:
            if task.cancel():
                await asyncio.wait([task])

    def _peers(self, session: Session) -> dict[int, str]:
        return {
            target: listening.data_address
            for target in self._run.nodes[session.node].links
            if (listening := self._server.sessions[target].listening) is not None
        }

    async def _barrier(
        self,
        what: str,
        arrived: Callable[[Session], bool],
        sessions: Sequence[Session] | None = None,
        within_s: float = _STEP_S,
    ) -> None:
        """Until all have arrived; BarrierTimeout names the missing."""
        sessions = self._sessions if sessions is None else sessions
        deadline = time.monotonic() + within_s * max(1.0, self._scale)
        while not all(arrived(session) for session in sessions):
            self._server.changed.clear()
            self._raise_if_broken()
            if time.monotonic() > deadline:
                missing = [str(s.node) for s in sessions if not arrived(s)]
                raise BarrierTimeout(
                    f"nodes {', '.join(missing)} did not {what} within {within_s:g} s; "
                    f"see {self._directory.path / 'logs'}"
                )
            await self._server.wait(1.0)

    # -- the run -------------------------------------------------------------------------------

    async def _until_over(self) -> None:
        only_until = math.inf
        try:
            while not all(s.done is not None for s in self._living):
                self._server.changed.clear()
                self._take_records()
                again_s = self._faults.look()
                self._raise_if_broken()
                self._state.reason = self._state.reason or self._reason()
                unfinished = (s for s in self._living if s.done is None)
                self._stuck.look(() if self._faults.isolated else unfinished)
                if self._state.reason or time.monotonic() > only_until:
                    break
                leaders = [s for s in self._living if self._leads(s)]
                if only_until == math.inf and all(s.done is not None for s in leaders):
                    only_until = time.monotonic() + self._run.experiment.wait.timeout * self._scale
                self._show("running")
                again_s = _SHOW_S if again_s is None else again_s * self._scale
                await self._server.wait(min(_SHOW_S, max(0.001, again_s)))
        finally:
            self._state.ended = self._now_s()

    @property
    def _living(self) -> list[Session]:
        """All nodes but those that were killed on purpose."""
        return [s for s in self._sessions if not self._away(s.node)]

    def _away(self, node: int) -> bool:
        """Whether a node is dead because that was asked for, or on its way back."""
        return node in self._faults.dead or node in self.returning.away

    def _leads(self, session: Session) -> bool:
        """Whether the run waits for this node without limit."""
        everyone = self._run.experiment.protocol.ends_with == "all"
        return everyone or self._run.roles[session.node] == "server"

    def _reason(self) -> str | None:
        return self._rule.time(self._now_s()) or self._rule.sent(self._view.sent_bytes)

    def _take_records(self) -> None:
        """Write down what the nodes have reported."""
        while not self._server.rows.empty():
            row = self._server.rows.get_nowait()
            if self._directory.evaluation(row):
                self._faults.row(row)
                self._take_row(row)
        while not self._server.activities.empty():
            self._directory.activity(self._server.activities.get_nowait())
        while not self._server.events.empty():
            event = self._server.events.get_nowait()
            fields = {} if not event.fields else {"fields": event.fields}
            self._directory.event(event.name, event.time_s, event.node, **fields)

    def _take_row(self, row: records.Evaluation) -> None:
        view = self._view.nodes[row.node]
        view.accuracy = row.metrics.get("accuracy", view.accuracy)
        view.loss = row.metrics.get("loss", view.loss)
        self._state.reason = self._state.reason or self._rule.row(row)

    # -- the end -------------------------------------------------------------------------------

    async def _collect(self) -> None:
        """Stop the nodes that are left, take their closing records, let them go."""
        self._aborted = None
        self._show("collecting")
        await self._faults.end(self._state.reason or "the end of the run")
        for session in self._sessions:
            session.send(pb.CoordinatorMessage(stop=pb.Stop(reason=self._state.reason or "")))
        began = self._state.started
        if began:
            await close_links(self._server, _FINISH_S, self._again)
        within_s = _FINISH_S if began else 0.0
        await until_all(self._server, within_s, self._again, lambda s: s.final is not None)
        self._take_records()
        self._faults.look()
        for session in self._sessions:
            if session.final is not None:
                self._directory.final(session.final)
            session.send(pb.CoordinatorMessage(shutdown=pb.Shutdown()))
        linger_s = self._run.experiment.metrics.linger
        await until_all(self._server, linger_s + 2.0, self._again, lambda s: s.gone)

    def _again(self) -> bool:
        """Whether the user has lost patience with the winding up."""
        return self._aborted is not None

    # -- watching ------------------------------------------------------------------------------

    def _raise_if_broken(self) -> None:
        """What ends a run before its time: Ctrl-C, a failure, a death."""
        if self._aborted is not None:
            self._state.reason = self._aborted
            raise RunError(self._aborted)
        if self._faults.isolated:
            return
        for session in self._sessions:
            if session.failure is not None:
                self._event("failed", session.node, traceback=session.failure.traceback)
                raise RunError(f"node {session.node} failed: {session.failure.error}")
        while not self._group.exits.empty():
            ended = self._group.exits.get_nowait()
            if isinstance(ended, RunError):
                raise ended
            self._take_death(ended)
        for session in self._living:
            if not session.gone:
                continue
            # its launcher may be about to say how it ended
            since = self._state.gone_since.setdefault(session.node, time.monotonic())
            if time.monotonic() > since + _EXIT_NEWS_S:
                raise NodeDied(f"lost contact with node {session.node}")

    def _take_death(self, ended: Exit) -> None:
        """A node has ended: NodeDied, unless that was asked for."""
        if ended.node in self._mourned:
            # another coordinator has written it down
            self._mourned.discard(ended.node)
            return
        session = self._server.sessions[ended.node]
        where = f"in round {session.heartbeat.round}" if session.heartbeat else "before the start"
        log = self._directory.path / "logs" / f"node-{ended.node:04d}.log"
        self._view.nodes[ended.node].state = "dead"
        meant = self._away(ended.node)
        self._event("died", ended.node, how=str(ended), **({"expected": True} if meant else {}))
        if meant:
            return
        raise NodeDied(f"node {ended.node} died {where}: {ended}; see {log}")

    def _now_s(self) -> float:
        """Emulated time since the start."""
        if not self._state.started:
            return self._run.start_s
        return self._run.start_s + (time.monotonic() - self._state.started) / self._scale

    def _event(self, name: str, node: int | None = None, **fields: object) -> None:
        self._directory.event(name, self._now_s(), node, **fields)

    def _show(self, phase: str) -> None:
        view = self._view
        view.phase, view.time_s = phase, self._state.ended or self._now_s()
        view.control_bytes = self._server.size_bytes
        view.follow(self._sessions)
        self._watcher.show(view)
