"""A topology in a few lines, for a reader who is about to run on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tidings_coordinator.topology.graph import Graph, Schedule
from tidings_coordinator.topology.spectra import Stochastic

#: above this many nodes the diameter is left out: it costs a matrix product per hop
_DIAMETER_NODES = 256


@dataclass(frozen=True)
class Description:
    """What ``tidings check`` says of a schedule; ``str`` of it is one fact a line."""

    nodes: int
    #: undirected edges, or arcs where directed, of all phases together
    edges: int
    directed: bool
    #: how many nodes a node sends to in a round: least, mean and most over nodes and phases
    degree_min: int
    degree_mean: float
    degree_max: int
    #: hops between the farthest nodes in all phases together; None above 256 nodes or where the
    #: graph is not connected
    diameter: int | None
    #: of one round, see Schedule.facts
    spectral_gap: float
    stochastic: Stochastic
    phases: int
    #: rounds that each phase lasts
    every: int

    def __str__(self) -> str:
        join = " " if self.stochastic == "doubly" else "-"
        facts = {
            "nodes": str(self.nodes),
            "arcs" if self.directed else "edges": str(self.edges),
            "degree": f"{self.degree_min} to {self.degree_max}, mean {self.degree_mean:.4g}",
            "diameter": "not computed" if self.diameter is None else str(self.diameter),
            "spectral gap": f"{self.spectral_gap:.6g} a round",
            "weights": f"{self.stochastic}{join}stochastic",
            "phases": f"{self.phases}, {self.every} round(s) each" if self.phases > 1 else "1",
        }
        width = max(map(len, facts))
        return "\n".join(f"{name:<{width}}  {value}" for name, value in facts.items())


def describe(schedule: Schedule) -> Description:
    """The facts of a schedule that a reader wants to see before a run."""
    facts = schedule.facts()
    degrees = [degree for phase in schedule.phases for degree in phase.graph.out_degrees]
    return Description(
        nodes=facts.nodes,
        edges=facts.edges,
        directed=facts.directed,
        degree_min=min(degrees),
        degree_mean=sum(degrees) / len(degrees),
        degree_max=max(degrees),
        diameter=diameter(schedule.union) if facts.nodes <= _DIAMETER_NODES else None,
        spectral_gap=facts.spectral_gap,
        stochastic=schedule.stochastic,
        phases=len(schedule.phases),
        every=schedule.every,
    )


def diameter(graph: Graph) -> int | None:
    """Hops between the farthest pair of nodes, along arcs; None where one cannot be reached."""
    if not graph.connected:
        return None
    step = (graph.adjacency | np.eye(graph.nodes, dtype=np.bool_)).astype(np.float32)
    reached = np.eye(graph.nodes, dtype=np.float32)
    hops = 0
    while not reached.all():
        reached = np.minimum(step @ reached, 1)
        hops += 1
    return hops
