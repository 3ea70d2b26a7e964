"""Node plans straight from a topology, a protocol and a problem, without an experiment file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tidings.api import Attack, Problem, Protocol
from tidings.links.shape import LinkShape, NicShape
from tidings.runtime.plan import AttackPlan, NodePlan, Phase
from tidings_coordinator.topology.base import Topology
from tidings_coordinator.topology.graph import Schedule

#: a part by name, by ``{kind: NAME, ...}``, or the object itself (for parts of one test only)
Part = str | Mapping[str, Any]

#: 20 Mbit/s and 20 ms, the link of the examples
LINK = LinkShape(rate_bit_per_s=20e6, delay_ns=20_000_000)

#: a link that takes no time
IDEAL = LinkShape()

QUADRATIC: dict[str, Any] = {"kind": "quadratic", "dim": 12, "structure": "diagonal"}


def schedule_of(nodes: int, topology: Part, seed: int = 1) -> Schedule:
    """The graphs and weights of a topology."""
    return Topology.parse(topology).schedule(nodes, np.random.default_rng(seed))


def plans(
    nodes: int,
    topology: Part,
    protocol: Part | Protocol,
    problem: Part | Problem = QUADRATIC,
    rounds: int | None = 10,
    *,
    link: LinkShape | Callable[[int, int], LinkShape] = LINK,
    nic: NicShape | Callable[[int], NicShape] = NicShape(),
    seed: int = 1,
    attackers: Sequence[int] = (),
    attack: Part | Attack = "sign_flip",
    per_node: Mapping[int, Mapping[str, Any]] | None = None,
    **plan_fields: Any,
) -> list[NodePlan]:
    """The plans of all nodes.

    ``link`` and ``nic`` may be functions of (source, target) and of the node. ``plan_fields`` go
    into every plan, ``per_node[i]`` into that of node i on top.
    """
    schedule = schedule_of(nodes, topology, seed)
    facts, roles = schedule.facts(), Topology.parse(topology).roles(nodes)
    parts = {"protocol": protocol, "problem": problem}
    written = {key: _written(part) for key, part in parts.items()}
    objects = {key: part for key, part in parts.items() if isinstance(part, Protocol | Problem)}
    made = []
    for node in range(nodes):
        fields: dict[str, Any] = {
            "run": "test",
            "seed": seed,
            "node": node,
            "nodes": nodes,
            "role": roles[node],
            "phases": phases_of(schedule, node),
            "phase_rounds": schedule.every,
            "graph": facts,
            "links": {
                j: link(node, j) if callable(link) else link
                for j in schedule.union.out_neighbors(node)
            },
            "nic": nic(node) if callable(nic) else nic,
            "stop_rounds": rounds,
        }
        if node in attackers:
            # unvalidated, so that it may be an object
            config = attack if isinstance(attack, Attack) else _written(attack)
            fields["attack"] = AttackPlan.model_construct(config=config, attackers=tuple(attackers))
        plan = NodePlan(**(written | fields | plan_fields | dict((per_node or {}).get(node, {}))))
        made.append(plan.model_copy(update=objects))
    return made


def phases_of(schedule: Schedule, node: int) -> tuple[Phase, ...]:
    """One node's share of a schedule."""
    return tuple(
        Phase(
            out_neighbors=phase.graph.out_neighbors(node),
            weights={j: phase.weights[node, j] for j in phase.graph.in_neighbors(node)},
            self_weight=phase.weights[node, node],
            shares={j: phase.weights[j, node] for j in phase.graph.out_neighbors(node)},
        )
        for phase in schedule.phases
    )


def _written(part: object) -> dict[str, Any]:
    if isinstance(part, str):
        return {"kind": part}
    return dict(part) if isinstance(part, Mapping) else {}
