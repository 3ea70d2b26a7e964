"""Topologies in turn."""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field

import numpy as np

from tidings_coordinator.topology.base import Topology, topologies
from tidings_coordinator.topology.graph import Graph, Phase
from tidings_coordinator.topology.mixing.base import Mixing
from tidings_coordinator.topology.mixing.metropolis_hastings import MetropolisHastings


@topologies.register("sequence")
@dataclass(frozen=True)
class Sequence(Topology):
    """Several topologies in turn, each for ``every`` rounds, then again from the first.

    Every part has its own mixing, and one graph: a part that changes over time by itself is
    refused. Only all parts together must be connected, so matchings in turn are fine.
    """

    of: tuple[Topology, ...]
    every: int = 10
    #: not a parameter: the parts have their own
    mixing: Mixing = field(default=MetropolisHastings(), init=False, kw_only=True)

    def __post_init__(self) -> None:
        if not self.of:
            raise ValueError("'of' needs at least one topology")
        if self.every < 1:
            raise ValueError(f"every is a number of rounds from 1 on, got {self.every}")

    @property
    def rounds_per_graph(self) -> int:
        """``every``."""
        return self.every

    def graphs(self, nodes: int, rng: np.random.Generator) -> SequenceOf[Graph]:
        """The parts' graphs."""
        return [phase.graph for phase in self.phases(nodes, rng)]

    def phases(self, nodes: int, rng: np.random.Generator) -> tuple[Phase, ...]:
        """The parts' graphs with the parts' weights; ValueError for one that is not static."""
        parts = [part.phases(nodes, rng) for part in self.of]
        for number, (part, phases) in enumerate(zip(self.of, parts, strict=True), 1):
            if len(phases) > 1:
                raise ValueError(
                    f"part {number} of the sequence, '{part.kind}', changes over time by itself; "
                    "only static topologies can be put in turn"
                )
        return tuple(phases[0] for phases in parts)
