"""The one-peer exponential graphs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tidings_coordinator.topology import layouts
from tidings_coordinator.topology.base import Topology, topologies
from tidings_coordinator.topology.exponential import hops
from tidings_coordinator.topology.graph import Graph
from tidings_coordinator.topology.mixing.base import Mixing
from tidings_coordinator.topology.mixing.uniform import Uniform
from tidings_coordinator.topology.spectra import Matrix


@topologies.register("one_peer_exponential")
@dataclass(frozen=True)
class OnePeerExponential(Topology):
    """One-peer exponential graphs (Assran et al., ICML 2019; Ying et al., NeurIPS 2021).

    Round t has the arcs i -> i + 2^k mod n, k = t mod ceil(log2 n): everyone sends to one node and
    hears one. Directed, at least 2 nodes. With uniform weights (1/2 and 1/2) a period averages
    exactly where n is a power of two (proved by Ying et al.).
    """

    mixing: Mixing = field(default=Uniform(), kw_only=True)

    def graphs(self, nodes: int, rng: np.random.Generator) -> Sequence[Graph]:
        """One graph for each power of two below ``nodes``."""
        self.at_least(2, nodes)
        return [
            Graph.from_edges(nodes, [(i, (i + hop) % nodes) for i in range(nodes)], directed=True)
            for hop in hops(nodes)
        ]

    def layout(self, graph: Graph) -> Matrix:
        """A circle."""
        return layouts.circle(graph.nodes)
