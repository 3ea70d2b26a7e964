"""The binary tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tidings_coordinator.topology import layouts
from tidings_coordinator.topology.base import Topology, topologies
from tidings_coordinator.topology.graph import Graph
from tidings_coordinator.topology.spectra import Matrix


@topologies.register("binary_tree")
@dataclass(frozen=True)
class BinaryTree(Topology):
    """Binary tree, filled level by level: i and its parent floor((i-1)/2), any number of nodes.

    Node 0 is the root; n-1 edges, degree at most 3, diameter about 2 log2 n.
    """

    def graphs(self, nodes: int, rng: np.random.Generator) -> Sequence[Graph]:
        """The tree."""
        return [Graph.from_edges(nodes, [((node - 1) // 2, node) for node in range(1, nodes)])]

    def layout(self, graph: Graph) -> Matrix:
        """In layers, the root at the top."""
        return layouts.layered(graph.nodes)
