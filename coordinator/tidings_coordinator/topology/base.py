"""The family of topologies: who sends to whom, round by round."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tidings.registry import Plugin, Registry
from tidings_coordinator.topology import layouts
from tidings_coordinator.topology.graph import Graph, Phase, Schedule
from tidings_coordinator.topology.mixing.base import Mixing
from tidings_coordinator.topology.mixing.metropolis_hastings import MetropolisHastings
from tidings_coordinator.topology.spectra import Matrix

#: how often a random static graph is drawn again because it was not connected
_TRIES = 100


@dataclass(frozen=True, kw_only=True)
class Topology(Plugin):
    """A graph, or a repeating sequence of graphs, for any number of nodes that it can have."""

    registry: ClassVar[Registry[Topology]]
    #: what to do about a graph that is not connected, for the error message
    remedy: ClassVar[str] = "add edges"

    #: the weights with which neighbours average
    mixing: Mixing = MetropolisHastings()

    @abstractmethod
    def graphs(self, nodes: int, rng: np.random.Generator) -> Sequence[Graph]:
        """The graphs of one period, one for a static topology.

        Raises ValueError where there is no such graph with that number of nodes.
        """

    @property
    def rounds_per_graph(self) -> int:
        """How many rounds each of :meth:`graphs` lasts."""
        return 1

    def phases(self, nodes: int, rng: np.random.Generator) -> tuple[Phase, ...]:
        """The graphs of one period with their weights."""
        return tuple(self.mixing.phase(graph) for graph in self.graphs(nodes, rng))

    def schedule(self, nodes: int, rng: np.random.Generator) -> Schedule:
        """The graphs and weights of every round.

        Raises ValueError where the number of nodes or the weights do not fit the graph, and where
        the graphs of a period, taken together, are not (strongly) connected.
        """
        schedule = Schedule(self.phases(nodes, rng), self.rounds_per_graph)
        cut_off = schedule.union.cut_off
        if cut_off:
            graphs = len(schedule.phases)
            what = "graph" if graphs == 1 else f"union of all {graphs} graphs of a period"
            strongly = "strongly " if schedule.union.directed else ""
            raise ValueError(
                f"the {what} of '{self.kind}' is not {strongly}connected: there is no way between "
                f"node 0 and {_listed(cut_off)}; {self.remedy}"
            )
        return schedule

    def roles(self, nodes: int) -> tuple[str, ...]:
        """What each node is: "peer", or on a star "server" and "client"."""
        return ("peer",) * nodes

    def layout(self, graph: Graph) -> Matrix:
        """Where to draw the nodes: (nodes, 2) float64 in the unit square, always the same."""
        return layouts.spring(graph)

    def at_least(self, minimum: int, nodes: int) -> None:
        """ValueError for fewer than ``minimum`` nodes."""
        if nodes < minimum:
            raise ValueError(f"'{self.kind}' needs at least {minimum} nodes, got {nodes}")


topologies: Registry[Topology] = Registry("topologies", "tidings_coordinator.topology")
Topology.registry = topologies


@dataclass(frozen=True, kw_only=True)
class RandomTopology(Topology):
    """A random graph: drawn once, until it is connected, or drawn anew every so many rounds.

    A graph that is drawn anew may be disconnected; that of all rounds of a period together may not.
    """

    #: rounds after which another graph is drawn; never by default
    resample: int | None = None
    #: graphs that are drawn before they repeat
    period: int = 32

    def __post_init__(self) -> None:
        if self.resample is not None and self.resample < 1:
            raise ValueError(f"resample is a number of rounds from 1 on, got {self.resample}")
        if self.period < 1:
            raise ValueError(f"period is a number of graphs from 1 on, got {self.period}")

    @abstractmethod
    def draw(self, nodes: int, rng: np.random.Generator) -> Graph:
        """One graph, connected or not. ValueError where none can exist."""

    @property
    def rounds_per_graph(self) -> int:
        """``resample``, where it is given."""
        return self.resample or 1

    def graphs(self, nodes: int, rng: np.random.Generator) -> Sequence[Graph]:
        """``period`` graphs, or one that is connected; ValueError where that does not come up."""
        if self.resample is not None:
            return [self.draw(nodes, rng) for _ in range(self.period)]
        for _ in range(_TRIES):
            graph = self.draw(nodes, rng)
            if graph.connected:
                return [graph]
        raise ValueError(
            f"none of {_TRIES} '{self.kind}' graphs on {nodes} nodes was connected; {self.remedy}"
        )


def _listed(nodes: tuple[int, ...]) -> str:
    shown = ", ".join(map(str, nodes[:5]))
    more = f" and {len(nodes) - 5} more" if len(nodes) > 5 else ""
    return f"node{'s' if len(nodes) > 1 else ''} {shown}{more}"


def seed_from(rng: np.random.Generator) -> int:
    """A seed for a generator of another package, drawn from ours."""
    return int(rng.integers(2**31))
