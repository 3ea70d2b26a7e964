"""The static exponential graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tidings_coordinator.topology import layouts
from tidings_coordinator.topology.base import Topology, topologies
from tidings_coordinator.topology.graph import Graph
from tidings_coordinator.topology.mixing.base import Mixing
from tidings_coordinator.topology.mixing.uniform import Uniform
from tidings_coordinator.topology.spectra import Matrix


@topologies.register("exponential")
@dataclass(frozen=True)
class Exponential(Topology):
    """Static exponential graph (Ying et al., NeurIPS 2021): i sends to i + 2^k mod n.

    For k = 0 .. ceil(log2 n) - 1, so all degrees are ceil(log2 n). Directed, at least 2 nodes. With
    uniform weights, which are doubly stochastic here, the spectral gap is
    2 / (1 + ceil(log2 n)) for even n (proved there), and larger for odd n.
    """

    mixing: Mixing = field(default=Uniform(), kw_only=True)

    def graphs(self, nodes: int, rng: np.random.Generator) -> Sequence[Graph]:
        """The exponential graph."""
        self.at_least(2, nodes)
        arcs = [(i, (i + hop) % nodes) for hop in hops(nodes) for i in range(nodes)]
        return [Graph.from_edges(nodes, arcs, directed=True)]

    def layout(self, graph: Graph) -> Matrix:
        """A circle."""
        return layouts.circle(graph.nodes)


def hops(nodes: int) -> list[int]:
    """The powers of two below ``nodes``."""
    return [2**k for k in range((nodes - 1).bit_length())]
