"""The small world."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import networkx as nx
import numpy as np

from tidings.units import Ratio
from tidings_coordinator.topology import layouts
from tidings_coordinator.topology.base import RandomTopology, seed_from, topologies
from tidings_coordinator.topology.graph import Graph
from tidings_coordinator.topology.spectra import Matrix


@topologies.register("small_world")
@dataclass(frozen=True)
class SmallWorld(RandomTopology):
    """Small world (Watts & Strogatz, Nature 1998).

    A ring on which each node is joined with its k nearest, of which each edge has one end moved to
    a random node with probability p. k even, at least 2, below the number of nodes; n k / 2 edges.
    """

    remedy: ClassVar[str] = "raise 'k'"

    k: int = 4
    p: Ratio = Ratio(0.1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k < 2 or self.k % 2:
            raise ValueError(f"k is an even number from 2 on, got {self.k}")

    def draw(self, nodes: int, rng: np.random.Generator) -> Graph:
        """One graph; ValueError where k is not below the number of nodes."""
        if self.k >= nodes:
            raise ValueError(f"a small world needs k < nodes, got k = {self.k} on {nodes} nodes")
        return Graph.from_networkx(
            nx.watts_strogatz_graph(nodes, self.k, float(self.p), seed_from(rng))
        )

    def layout(self, graph: Graph) -> Matrix:
        """A circle, on which the moved edges are chords."""
        return layouts.circle(graph.nodes)
