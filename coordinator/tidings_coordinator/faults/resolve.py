"""From the events of an experiment to their occurrences, each with its targets and its moment."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tidings.errors import ConfigError, nearest
from tidings.faults.coord_isolate import CoordIsolate
from tidings.faults.graph_rewire import GraphRewire
from tidings.faults.matching import HANDSHAKE, MatchingFault
from tidings.faults.net_partition import NetPartition
from tidings.faults.node_churn import NodeChurn
from tidings.faults.node_crash import NodeCrash
from tidings.faults.node_isolate import NodeIsolate
from tidings.faults.node_join import NodeJoin
from tidings.faults.store_fail import StoreFail
from tidings.runtime.plan import derive_rng
from tidings.units import Duration
from tidings_coordinator.experiment.model import Experiment
from tidings_coordinator.faults.choosing import Chooser
from tidings_coordinator.faults.events import FaultEvent, Moment, Span, When
from tidings_coordinator.faults.firing import Arc, Firing, Trigger
from tidings_coordinator.topology.graph import Schedule

_MAX_FIRINGS = 10_000


def resolve(experiment: Experiment, schedule: Schedule) -> tuple[Firing, ...]:
    """Every occurrence of every event, in the order of the file; ConfigError with the key."""
    names = [event.id for event in experiment.faults]
    firings: list[Firing] = []
    for index, event in enumerate(experiment.faults):
        if names.index(event.id) != index:
            raise ConfigError(f"two events are called '{event.id}'", ("faults", index, "id"))
        firings += _Resolution(experiment, schedule, event, ("faults", index)).firings()
        if len(firings) > _MAX_FIRINGS:
            raise ConfigError(f"more than {_MAX_FIRINGS} occurrences", ("faults", index))
    return tuple(firings)


@dataclass
class _Resolution:
    experiment: Experiment
    schedule: Schedule
    event: FaultEvent
    path: tuple[str | int, ...]

    def firings(self) -> list[Firing]:
        """The event's occurrences."""
        self._check()
        if isinstance(self.event.fault, NodeChurn):
            return list(self._churn(self.event.fault))
        first = self._trigger()
        span = self._span()
        if isinstance(self.event.fault, NodeJoin):
            # until it comes it is not there
            first, span = Trigger(time_s=0.0), Span(time=Duration(first.time_s or 0.0))
        made = []
        for occurrence, trigger in enumerate(self._repeated(first)):
            again = occurrence if self.event.resample else 0
            nodes, arcs = self._targets(again)
            fault = self.event.fault
            made.append(Firing(self.event.id, occurrence, fault, nodes, arcs, trigger, span))
        return made

    def _wrong(self, message: str, *path: str | int) -> ConfigError:
        return ConfigError(message, (*self.path, *path))

    def _check(self) -> None:
        event, fault = self.event, self.event.fault
        if fault.picks == "nothing" and event.on is not None:
            raise self._wrong(f"'{fault.kind}' takes no 'on'", "on")
        if fault.picks != "nothing" and event.on is None:
            raise self._wrong(f"'{fault.kind}' needs 'on': the {fault.picks} that it hits")
        if isinstance(fault, StoreFail) and self.experiment.checkpoint.every is None:
            raise self._wrong("nodes write no checkpoints: checkpoint.every says when", "fault")
        if isinstance(fault, CoordIsolate) and event.lasts_s is None:
            # who hears nothing cannot count
            raise self._wrong("say for how long, as a time: for: 10s", "fault")
        if isinstance(fault, NodeJoin) and not (
            event.at is not None and event.at.time and event.for_ is None and event.every is None
        ):
            raise self._wrong("'node.join' comes at a time, once: at: 20s", "fault")
        if isinstance(fault, MatchingFault) and fault.message is not None:
            known = [kind.__name__ for kind in self.experiment.protocol.messages]
            if fault.message not in (*known, HANDSHAKE):
                hint = nearest(fault.message, [*known, HANDSHAKE])
                message = f"the protocol sends no '{fault.message}'; {hint}"
                raise self._wrong(message, "with", "message")
        known = [other.id for other in self.experiment.faults if other is not event]
        if event.after is not None and event.after.event not in known:
            hint = nearest(event.after.event, known)
            raise self._wrong(f"no event '{event.after.event}'; {hint}", "after", "event")

    # -- when ----------------------------------------------------------------------------------

    def _trigger(self) -> Trigger:
        event = self.event
        if event.after is not None:
            return Trigger(after=event.after)
        if event.when is not None:
            return Trigger(when=event.when)
        moment = event.at or event.from_ or Moment(time=Duration(0))
        return self._at(moment)

    def _at(self, moment: Moment) -> Trigger:
        if moment.time is not None:
            return Trigger(time_s=float(moment.time))
        if moment.bytes is not None:
            return Trigger(sent_bytes=int(moment.bytes))
        if moment.accuracy is not None:
            condition = {"metric": "accuracy", ">=": float(moment.accuracy)}
            return Trigger(when=When.model_validate(condition))
        # a run as a whole is in no round of its own
        own = self.experiment.protocol.synchronous and self.event.fault.scope != "run"
        return Trigger(round=moment.round, of=moment.of or ("own" if own else "median"))

    def _span(self) -> Span | None:
        event = self.event
        if event.for_ is not None or event.to is None or event.every is not None:
            return event.for_
        start, end = event.from_, event.to
        assert start is not None
        if start.time is not None and end.time is not None and end.time > start.time:
            return Span(time=Duration(end.time - start.time))
        if start.round is not None and end.round is not None and end.round > start.round:
            return Span(rounds=end.round - start.round)
        raise self._wrong("must be later than 'from', and of the same kind", "to")

    def _repeated(self, first: Trigger) -> Iterator[Trigger]:
        every = self.event.every
        if every is None:
            yield first
            return
        last = self._last(first)
        for number in range(_MAX_FIRINGS + 1):
            if self.event.times is not None and number >= self.event.times:
                return
            if every.time is not None and first.time_s is not None:
                time_s = first.time_s + number * float(every.time)
                over, trigger = time_s > last, replace(first, time_s=time_s)
            elif every.rounds is not None and first.round is not None:
                round_ = first.round + number * every.rounds
                over, trigger = round_ > last, replace(first, round=round_)
            else:
                raise self._wrong("must be of the same kind as the beginning", "every")
            if over:
                return
            yield trigger

    def _last(self, first: Trigger) -> float:
        """The last moment at which a repeated event may begin."""
        end, stop = self.event.to or Moment.model_construct(), self.experiment.stop
        if first.time_s is not None:
            limits = [float(time) for time in (end.time, stop.time) if time is not None]
        else:
            limits = [float(r) for r in (end.round, stop.rounds) if r is not None]
        if not limits and self.event.times is None:
            raise self._wrong("say how often, with 'times' or 'to'", "every")
        return min(limits, default=math.inf)

    # -- who -----------------------------------------------------------------------------------

    def _targets(self, again: int) -> tuple[tuple[int, ...], tuple[Arc, ...]]:
        """The nodes that act, and the links that are hit."""
        event, fault = self.event, self.event.fault
        choose = self._chooser(*([again] if again else []))
        graph = choose.graph
        try:
            if fault.scope == "run":
                return (), ()
            if isinstance(fault, GraphRewire):
                return tuple(range(graph.nodes)), ()
            if isinstance(fault, NetPartition):
                arcs = choose.partition(fault.shape, fault.groups, fault.oneway)
            elif isinstance(fault, NodeIsolate):
                inside = set(choose.nodes(event.on or ()))
                out, into = fault.direction in ("out", "both"), fault.direction in ("in", "both")
                arcs = tuple(
                    (i, j)
                    for i, j in sorted(graph.arcs)
                    if (out and i in inside) or (into and j in inside)
                )
            elif fault.scope == "link":
                arcs = choose.arcs(event.on or ())
            else:
                return choose.nodes(event.on or ()), ()
        except ValueError as error:
            key = "on" if event.on is not None else "with"
            raise self._wrong(str(error), key) from error
        return tuple(sorted({i for i, _ in arcs})), arcs

    def _chooser(self, *salt: object) -> Chooser:
        experiment = self.experiment
        byzantine = () if experiment.byzantine is None else experiment.byzantine.on
        rng = derive_rng(experiment.seed, "fault", self.event.id, *salt)
        attackers = tuple(int(node) for node in byzantine)
        groups: Any = experiment.network.groups
        return Chooser(self.schedule.union, groups, attackers, rng)

    # -- churn ---------------------------------------------------------------------------------

    def _churn(self, churn: NodeChurn) -> Iterator[Firing]:
        """Crashes as a Poisson process over the nodes that are up."""
        nodes, _ = self._targets(0)
        start_s, end_s = self._window()
        rng = derive_rng(self.experiment.seed, "churn", self.event.id)
        rate_per_s = float(churn.per_minute) * len(nodes) / 60.0
        down_until = dict.fromkeys(nodes, 0.0)
        now_s, occurrence = start_s, 0
        while (now_s := now_s + float(rng.exponential(1 / rate_per_s))) < end_s:
            node = nodes[int(rng.integers(len(nodes)))]
            away_s = float(churn.downtime)
            if churn.distribution == "exponential":
                away_s = max(0.1, float(rng.exponential(away_s)))
            if down_until[node] > now_s:
                continue
            down_until[node] = now_s + away_s
            crash = NodeCrash(Duration(round(away_s, 3)), churn.lose_state)
            trigger = Trigger(time_s=round(now_s, 3))
            yield Firing(self.event.id, occurrence, crash, (node,), (), trigger, None)
            occurrence += 1
        if occurrence == 0:
            raise self._wrong("no crash falls into its time with this seed; ask for more of it")

    def _window(self) -> tuple[float, float]:
        event, stop = self.event, self.experiment.stop
        start = event.from_ or event.at or Moment(time=Duration(0))
        end = event.to.time if event.to is not None else stop.time
        if start.time is None or end is None:
            raise self._wrong("churn goes 'from' a time 'to' a time (or to stop.time)")
        return float(start.time), float(end)


def concrete(events: Sequence[FaultEvent], firings: Sequence[Firing]) -> tuple[FaultEvent, ...]:
    """The events with the nodes and links that were chosen in place of random choices."""
    first = {firing.event: firing for firing in reversed(firings)}

    def written(event: FaultEvent) -> FaultEvent:
        firing = first.get(event.id)
        if firing is None or event.on is None or event.resample:
            return event
        if isinstance(event.fault, NodeChurn | NodeIsolate):
            return event
        names: tuple[int | str, ...] = firing.nodes
        if event.fault.scope == "link":
            names = tuple(f"{i}->{j}" for i, j in firing.arcs)
        return event.model_copy(update={"on": names})

    return tuple(map(written, events))
