"""From an experiment to one plan per node, before anything is started."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from tidings.errors import ConfigError
from tidings.faults.data_label_noise import LabelNoise
from tidings.faults.data_shift import DataShift
from tidings.links import kernel
from tidings.links.shape import LinkShape
from tidings.runtime import disturbing
from tidings.runtime.parts import Parts
from tidings.runtime.plan import (
    ArmedFault,
    AttackPlan,
    CheckpointPlan,
    ComputePlan,
    NodePlan,
    Phase,
    Rewired,
    TransportKind,
    derive_rng,
)
from tidings.units import Duration
from tidings_coordinator import enforcing, liveness
from tidings_coordinator.experiment.model import Experiment
from tidings_coordinator.experiment.selectors import selects
from tidings_coordinator.faults.firing import Firing
from tidings_coordinator.faults.resolve import concrete, resolve
from tidings_coordinator.faults.rewiring import rewirings
from tidings_coordinator.launchers import demands
from tidings_coordinator.topology.graph import Schedule

#: of a run directory
CHECKPOINTS = "checkpoints"
#: how long a chunk occupies its line: long enough for timers, short enough for fair sharing
_CHUNK_S, _SHARED_CHUNK_S = 0.02, 0.005
#: spans of its timeline that a node keeps to the moment, and those that all nodes keep together
_LEAST_SPANS, _MOST_SPANS, _ALL_SPANS = 64, 2000, 64_000
_MIN_CHUNK_BYTES, _MAX_CHUNK_BYTES = 16 << 10, 256 << 10
#: over MPI a whole message, for what is cut there must be put together again
_UNSHAPED_CHUNK_BYTES: dict[TransportKind, int] = {
    "memory": 1 << 20,
    "grpc": 1 << 20,
    "mpi": 64 << 20,
}


@dataclass(frozen=True)
class RunPlan:
    """A whole run: what the coordinator knows and the nodes do not."""

    run: str
    experiment: Experiment
    schedule: Schedule
    roles: tuple[str, ...]
    #: positions for drawing, (n, 2) in the unit square
    layout: np.ndarray
    nodes: tuple[NodePlan, ...]
    #: emulated time at which it begins: above 0 for a run that is resumed
    start_s: float = 0.0
    #: every occurrence of every fault
    firings: tuple[Firing, ...] = ()

    @property
    def byzantine(self) -> tuple[int, ...]:
        """The nodes that attack."""
        found = self.experiment.byzantine
        return () if found is None else tuple(sorted(found.on))

    @property
    def honest(self) -> tuple[int, ...]:
        """The nodes whose models count."""
        return tuple(i for i in range(len(self.nodes)) if i not in self.byzantine)

    def kept_in(self, directory: Path) -> RunPlan:
        """The same run, its checkpoints to be in the run directory."""
        place = {"directory": str(directory.resolve() / CHECKPOINTS)}
        nodes = tuple(
            plan
            if plan.checkpoint is None
            else plan.model_copy(update={"checkpoint": plan.checkpoint.model_copy(update=place)})
            for plan in self.nodes
        )
        return replace(self, nodes=nodes)

    @property
    def grace_s(self) -> float:
        """Wall seconds for which all nodes outlive a coordinator that is killed."""
        launcher = self.experiment.launcher
        outlive = "outlive" in launcher.can.abilities and not launcher.lacks("outlive")
        return self.nodes[0].grace_s if outlive else 0.0

    @property
    def evaluated_by_time(self) -> bool:
        """Whether models are evaluated at points in time, not in rounds."""
        return self.nodes[0].evaluate_s is not None

    @cached_property
    def links(self) -> dict[tuple[int, int], LinkShape]:
        """All directed links as they were asked for."""
        return {(p.node, j): shape for p in self.nodes for j, shape in p.links.items()}

    @cached_property
    def parts(self) -> Parts:
        """Node 0's protocol, problem and codec, for predictions."""
        return Parts.of(self.nodes[0])


def plan(experiment: Experiment, run: str) -> RunPlan:
    """Resolve an experiment; UserError for what cannot work, with file, line and key."""
    try:
        return _plan(experiment, run)
    except ConfigError as error:
        raise experiment.mistake(error) from error


def _plan(experiment: Experiment, run: str) -> RunPlan:
    topology, nodes = experiment.topology, experiment.nodes
    try:
        schedule = topology.schedule(nodes, derive_rng(experiment.seed, "topology"))
    except ValueError as error:
        raise ConfigError(str(error), ("topology",)) from error
    roles = topology.roles(nodes)
    _check(experiment, schedule, roles)
    rewired = rewirings(experiment)
    for other, path in rewired.values():
        _check(experiment, other, roles, path)
    schedule = replace(schedule, others=tuple(other for other, _ in rewired.values()))
    union = schedule.union
    for index, link in enumerate(experiment.network.links):
        groups = experiment.network.groups
        if not any(selects(link.on, groups, i, j) for i, j in union.arcs):
            message = f"'{link.on}' selects no link of this topology"
            raise ConfigError(message, ("network", "links", index, "on"))
    firings = resolve(experiment, schedule)
    faults = concrete(experiment.faults, firings)
    experiment = experiment.model_copy(update={"faults": faults})
    plans = tuple(
        _node_plan(experiment, run, schedule, roles[node], node).model_copy(
            update={
                "faults": _armed(firings, node),
                "report_rounds": _counted_rounds(firings),
                "graphs": {
                    event: Rewired(phases=_phases(other, node), phase_rounds=other.every)
                    for event, (other, _) in rewired.items()
                },
            }
        )
        for node in range(nodes)
    )
    planned = RunPlan(
        run, experiment, schedule, roles, topology.layout(union), plans, firings=firings
    )
    _check_problem(planned)
    _check_attack(planned)
    _check_data_faults(planned)
    liveness.check(planned)
    demands.check(experiment)
    if experiment.network.enforce == "kernel":
        enforcing.check(planned, kernel.check)
    return planned


def _check_problem(run: RunPlan) -> None:
    """That the problem can be dealt out to so many nodes, and suits the protocol."""
    try:
        problem = run.parts.problem
    except (ValueError, MemoryError) as error:
        raise ConfigError(str(error), ("problem",)) from error
    try:
        run.experiment.protocol.check_problem(problem)
    except ValueError as error:
        raise ConfigError(str(error), ("protocol",)) from error


def _check_attack(run: RunPlan) -> None:
    """Whether the attack can be carried out on this problem."""
    byzantine = run.experiment.byzantine
    if byzantine is None:
        return
    try:
        byzantine.attack.poison(run.parts.problem)
    except ValueError as error:
        raise ConfigError(str(error), ("byzantine", "attack")) from error


def _check_data_faults(run: RunPlan) -> None:
    """Whether the data can be disturbed as asked."""
    rng = derive_rng(0)
    for index, event in enumerate(run.experiment.faults):
        try:
            if isinstance(event.fault, LabelNoise):
                disturbing.noisy(run.parts.problem, event.fault.fraction, rng)
            elif isinstance(event.fault, DataShift):
                disturbing.shifted(run.parts.problem, event.fault.size, rng)
        except ValueError as error:
            raise ConfigError(str(error), ("faults", index, "fault")) from error


def _check(
    experiment: Experiment,
    schedule: Schedule,
    roles: tuple[str, ...],
    path: tuple[str | int, ...] = ("topology",),
) -> None:
    """What the protocol needs of the graph that ``path`` says, and of its weights."""
    protocol, facts = experiment.protocol, schedule.facts()
    if protocol.ends_with == "server" and "server" not in roles:
        raise ConfigError(f"{protocol.kind} needs a server and clients: use star", path)
    if protocol.static_graph and not facts.static:
        raise ConfigError(
            f"{protocol.kind} needs one graph for the whole run; "
            f"that of '{experiment.topology.kind}' changes",
            path,
        )
    if protocol.two_way_links and facts.directed:
        raise ConfigError(
            f"{protocol.kind} needs every link in both directions; "
            f"'{experiment.topology.kind}' is directed here",
            path,
        )
    if facts.stochastic not in (protocol.stochastic, "doubly"):
        wanted = {"row": "rows", "column": "columns", "doubly": "rows and columns"}
        raise ConfigError(
            f"{protocol.kind} needs weights whose {wanted[protocol.stochastic]} "
            f"sum to 1; these are {facts.stochastic}-stochastic",
            (*path, "mixing"),
        )
    for phase in schedule.phases:
        degrees = tuple(len(phase.graph.in_neighbors(i)) for i in range(experiment.nodes))
        try:
            protocol.check(degrees, facts)
        except ValueError as error:
            place = ("protocol",) if path == ("topology",) else path
            raise ConfigError(str(error), place) from error


def _node_plan(
    experiment: Experiment, run: str, schedule: Schedule, role: str, node: int
) -> NodePlan:
    network, stop = experiment.network, experiment.stop
    links = {j: network.shape(node, j) for j in schedule.union.out_neighbors(node)}
    nic = network.nic_of(node)
    transport = experiment.launcher.as_set.transport
    every = experiment.evaluate.every
    timed = isinstance(every, Duration)
    return NodePlan(
        run=run,
        seed=experiment.seed,
        node=node,
        nodes=experiment.nodes,
        role=role,
        protocol=experiment.protocol.config(),
        problem=experiment.problem.config(),
        phases=_phases(schedule, node),
        phase_rounds=schedule.every,
        graph=schedule.facts(),
        links=links,
        nic=nic,
        transport=transport,
        enforce=network.enforce,
        attack=_attack(experiment, node),
        wait_for=experiment.wait.for_,
        wait_s=experiment.wait.timeout,
        stop_rounds=stop.rounds,
        evaluate_rounds=None if timed else int(every),
        evaluate_s=float(every) if timed else None,
        compute=_compute(experiment, node),
        time_scale=network.time_scale,
        chunk_bytes=_chunk_bytes(
            links, [nic.egress_bit_per_s, *_ingress_rates(experiment, links)], transport
        ),
        trace=experiment.records.trace,
        order=experiment.records.order,
        timeline=_timeline(experiment),
        heartbeat=liveness.heartbeat(experiment.wait),
        grace_s=liveness.grace_s(experiment),
        checkpoint=_checkpoint(experiment),
        metrics=experiment.metrics.serve,
        metrics_host=_metrics_host(experiment),
        linger_s=experiment.metrics.linger,
    )


def _phases(schedule: Schedule, node: int) -> tuple[Phase, ...]:
    """A node's share of a graph."""
    return tuple(
        Phase(
            out_neighbors=phase.graph.out_neighbors(node),
            weights={j: float(phase.weights[node, j]) for j in phase.graph.in_neighbors(node)},
            self_weight=float(phase.weights[node, node]),
            shares={j: float(phase.weights[j, node]) for j in phase.graph.out_neighbors(node)},
        )
        for phase in schedule.phases
    )


def _armed(firings: Sequence[Firing], node: int) -> tuple[ArmedFault, ...]:
    """What a node brings upon itself, or waits for, at a moment that it can tell by itself."""
    return tuple(
        firing.at(node)
        for firing in firings
        if (firing.armed or firing.awaited) and node in firing.nodes
    )


def _counted_rounds(firings: Sequence[Firing]) -> tuple[int, ...]:
    """Rounds of all nodes at which the coordinator has something to begin, or to end."""
    begins = [(f.trigger.round, f.span) for f in firings if f.trigger.of != "own"]
    ends = [(first or 0) + (span.rounds or 0) for first, span in begins if span is not None]
    return tuple(sorted({*ends, *(first for first, _ in begins if first is not None)}))


def _attack(experiment: Experiment, node: int) -> AttackPlan | None:
    byzantine = experiment.byzantine
    if byzantine is None or node not in byzantine.on:
        return None
    return AttackPlan(config=byzantine.attack.config(), attackers=tuple(sorted(byzantine.on)))


def _timeline(experiment: Experiment) -> int:
    """How many spans a node keeps to the moment: fewer where there are many nodes."""
    if not experiment.records.timeline:
        return 0
    return max(_LEAST_SPANS, min(_MOST_SPANS, _ALL_SPANS // experiment.nodes))


def _checkpoint(experiment: Experiment) -> CheckpointPlan | None:
    every, keep = experiment.checkpoint.every, experiment.checkpoint.keep
    if every is None:
        return None
    if not isinstance(every, Duration):
        return CheckpointPlan(every_rounds=int(every), keep=keep)
    if experiment.protocol.synchronous:
        raise ConfigError(
            f"the nodes of {experiment.protocol.kind} go through rounds together and can go on "
            "from one round only: give a number of rounds",
            ("checkpoint", "every"),
        )
    return CheckpointPlan(every_s=float(every), keep=keep)


def _compute(experiment: Experiment, node: int) -> ComputePlan:
    compute = experiment.compute
    factor = math.prod(slow.factor for slow in compute.slow if node in slow.on)
    return ComputePlan(
        time_s=None if compute.time == "native" else float(compute.time),
        simulated_s=compute.simulated,
        factor=factor,
        spread=compute.spread,
    )


def _metrics_host(experiment: Experiment) -> str:
    """Loopback unless asked; empty for the node's own address, in a network of the run's own."""
    given = experiment.metrics.host
    return given or ("" if experiment.launcher.own_network else "127.0.0.1")


def _ingress_rates(experiment: Experiment, links: Mapping[int, LinkShape]) -> list[float]:
    return [experiment.network.nic_of(j).ingress_bit_per_s for j in links]


def _chunk_bytes(
    links: Mapping[int, LinkShape], card_rates: list[float], transport: TransportKind
) -> int:
    """The size in which a node's messages travel, from the slowest line they pass."""
    cards = [rate for rate in card_rates if math.isfinite(rate)]
    lines = [
        shape.rate_bit_per_s for shape in links.values() if math.isfinite(shape.rate_bit_per_s)
    ]
    if not cards and not lines:
        return _UNSHAPED_CHUNK_BYTES[transport]
    chunk_s = _SHARED_CHUNK_S if cards else _CHUNK_S
    fitting = int(min(cards + lines) * chunk_s / 8)
    return max(_MIN_CHUNK_BYTES, min(_MAX_CHUNK_BYTES, fitting))


def predicted_round_bytes(run: RunPlan) -> float:
    """Bytes that all nodes together send in one round (or one local step of each), on average."""
    parts = run.parts
    traffic = parts.protocol.traffic(run.nodes[0].graph)
    return sum(parts.codec.expected_bytes(kind) * count for kind, count in traffic.items())
