"""The Erdős-Rényi random graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tidings.units import Ratio
from tidings_coordinator.topology.base import RandomTopology, topologies
from tidings_coordinator.topology.graph import Graph


@topologies.register("erdos_renyi")
@dataclass(frozen=True)
class ErdosRenyi(RandomTopology):
    """Erdős-Rényi random graph G(n, p) (Gilbert, Ann. Math. Stat. 1959).

    Each pair of nodes is an edge with probability p, independently; directed: each ordered pair is
    an arc. A static one is drawn until it is connected, which p well above ln(n)/n makes likely.
    """

    remedy: ClassVar[str] = "raise 'p'"

    p: Ratio
    directed: bool = False

    def draw(self, nodes: int, rng: np.random.Generator) -> Graph:
        """One graph, by n^2 uniform draws."""
        present = rng.random((nodes, nodes)) < self.p
        np.fill_diagonal(present, False)
        if not self.directed:
            present = np.triu(present)
        sources, targets = np.nonzero(present)
        pairs = zip(sources.tolist(), targets.tolist(), strict=True)
        return Graph.from_edges(nodes, pairs, self.directed)
