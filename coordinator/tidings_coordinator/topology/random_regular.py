"""The random regular graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import networkx as nx
import numpy as np

from tidings_coordinator.topology.base import RandomTopology, seed_from, topologies
from tidings_coordinator.topology.graph import Graph


@topologies.register("random_regular")
@dataclass(frozen=True)
class RandomRegular(RandomTopology):
    """Random regular graph: every node has the same degree, edges as random as that allows.

    By the pairing model (Steger & Wormald 1999). nodes x degree must be even, degree < nodes. From
    degree 3 on it is connected, and an expander, with high probability; degree 1 with ``resample``
    gives random matchings.
    """

    remedy: ClassVar[str] = "raise 'degree'"

    degree: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.degree < 1:
            raise ValueError(f"degree must be at least 1, got {self.degree}")

    def draw(self, nodes: int, rng: np.random.Generator) -> Graph:
        """One graph; ValueError for an odd number of edge ends or too few nodes."""
        if self.degree >= nodes or nodes * self.degree % 2:
            raise ValueError(
                f"a random regular graph needs degree < nodes and nodes x degree even; "
                f"got degree {self.degree} on {nodes} nodes"
            )
        return Graph.from_networkx(nx.random_regular_graph(self.degree, nodes, seed_from(rng)))
