"""The hypercube."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tidings_coordinator.topology.base import Topology, topologies
from tidings_coordinator.topology.graph import Graph


@topologies.register("hypercube")
@dataclass(frozen=True)
class Hypercube(Topology):
    """Hypercube: nodes whose numbers differ in one binary digit; 2^k nodes, k >= 1.

    Degree and diameter k = log2 n; with Metropolis-Hastings weights the spectral gap is 2/(k+1).
    """

    def graphs(self, nodes: int, rng: np.random.Generator) -> Sequence[Graph]:
        """The hypercube; ValueError where the number of nodes is not a power of two."""
        self.at_least(2, nodes)
        digits = nodes.bit_length() - 1
        if nodes != 2**digits:
            raise ValueError(
                f"a hypercube needs 2^k nodes, got {nodes}; "
                f"the nearest are {2**digits} and {2 ** (digits + 1)}"
            )
        edges = [(node, node ^ 2**digit) for node in range(nodes) for digit in range(digits)]
        return [Graph.from_edges(nodes, edges)]
