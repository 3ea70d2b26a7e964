"""The barbell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from tidings_coordinator.topology.base import Topology, topologies
from tidings_coordinator.topology.graph import Graph


@topologies.register("barbell")
@dataclass(frozen=True)
class Barbell(Topology):
    """Barbell: two complete graphs of floor(n/2) nodes with one bridge, at least 4 nodes.

    Nodes 0 .. n/2-1 and the last n/2 are the complete graphs; where n is odd, the middle node lies
    on the bridge. The usual bad case: many edges, and everything must pass one of them.
    """

    def graphs(self, nodes: int, rng: np.random.Generator) -> Sequence[Graph]:
        """The barbell."""
        self.at_least(4, nodes)
        half = nodes // 2
        left = combinations(range(half), 2)
        right = combinations(range(nodes - half, nodes), 2)
        bridge = [(node, node + 1) for node in range(half - 1, nodes - half)]
        return [Graph.from_edges(nodes, [*left, *right, *bridge])]
