"""The scale-free graph of preferential attachment."""

from __future__ import annotations

from dataclasses import dataclass

import networkx as nx
import numpy as np

from tidings_coordinator.topology.base import RandomTopology, seed_from, topologies
from tidings_coordinator.topology.graph import Graph


@topologies.register("barabasi_albert")
@dataclass(frozen=True)
class BarabasiAlbert(RandomTopology):
    """Preferential attachment (Barabási & Albert, Science 1999).

    Begins as a star of m + 1 nodes; each further node is joined with m earlier ones, chosen with
    probability proportional to their degrees. Always connected, a few hubs; 1 <= m < nodes.
    """

    m: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.m < 1:
            raise ValueError(f"m must be at least 1, got {self.m}")

    def draw(self, nodes: int, rng: np.random.Generator) -> Graph:
        """One graph; ValueError where m is not below the number of nodes."""
        if self.m >= nodes:
            raise ValueError(
                f"preferential attachment needs m < nodes, got m = {self.m} on {nodes} nodes"
            )
        return Graph.from_networkx(nx.barabasi_albert_graph(nodes, self.m, seed_from(rng)))
