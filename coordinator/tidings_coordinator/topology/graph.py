"""Graphs that carry models, and schedules of graphs with the weights of their averaging."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, Self

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from tidings.api import GraphFacts
from tidings_coordinator.topology.spectra import (
    SUM_TOLERANCE,
    BoolMatrix,
    Matrix,
    Stochastic,
    chi_and_gap,
    spectral_gap,
    stochasticity,
)


@dataclass(frozen=True)
class Graph:
    """A simple graph on the nodes 0 .. nodes-1; an arc ``(i, j)`` says that i sends to j.

    An undirected graph holds both arcs of each edge. Raises ValueError for self loops, for arcs
    out of range and for a one-way arc in an undirected graph.
    """

    nodes: int
    arcs: frozenset[tuple[int, int]]
    directed: bool = False

    def __post_init__(self) -> None:
        if self.nodes < 1:
            raise ValueError(f"a graph needs at least one node, got {self.nodes}")
        pairs = self._pairs
        for source, target in pairs[((pairs < 0) | (pairs >= self.nodes)).any(axis=1)]:
            raise ValueError(
                f"{source}->{target} is outside the nodes 0 .. {self.nodes - 1} of the graph"
            )
        for node, _ in pairs[pairs[:, 0] == pairs[:, 1]]:
            raise ValueError(f"node {node} sends to itself; a node's own share is a weight")
        if not self.directed:
            for target, source in np.argwhere(self.adjacency & ~self.adjacency.T):
                raise ValueError(
                    f"{source}->{target} has no way back, which an undirected graph needs"
                )

    @classmethod
    def from_edges(
        cls, nodes: int, edges: Iterable[tuple[int, int]], directed: bool = False
    ) -> Self:
        """The graph of pairs ``(i, j)``: i sends to j and, unless ``directed``, j to i."""
        arcs = set(edges)
        if not directed:
            arcs |= {(j, i) for i, j in arcs}
        return cls(nodes, frozenset(arcs), directed)

    @classmethod
    def from_networkx(cls, graph: nx.Graph[Any]) -> Self:
        """The same graph, nodes numbered in the sorted order of their labels."""
        number = {label: index for index, label in enumerate(sorted(graph.nodes))}
        edges = [(number[i], number[j]) for i, j in graph.edges()]
        return cls.from_edges(len(number), edges, graph.is_directed())

    @cached_property
    def _pairs(self) -> NDArray[np.int64]:
        """The arcs as rows, (arcs, 2)."""
        flat = np.fromiter(chain.from_iterable(self.arcs), dtype=np.int64, count=2 * len(self.arcs))
        return flat.reshape(-1, 2)

    @cached_property
    def adjacency(self) -> BoolMatrix:
        """(nodes, nodes) bool, read-only: ``[i, j]`` says that i hears j (as in a weight W_ij)."""
        heard = np.zeros((self.nodes, self.nodes), dtype=np.bool_)
        heard[self._pairs[:, 1], self._pairs[:, 0]] = True
        heard.setflags(write=False)
        return heard

    @cached_property
    def _in(self) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(np.flatnonzero(row).tolist()) for row in self.adjacency)

    @cached_property
    def _out(self) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(np.flatnonzero(column).tolist()) for column in self.adjacency.T)

    def in_neighbors(self, node: int) -> tuple[int, ...]:
        """Whom ``node`` hears, in node order."""
        return self._in[node]

    def out_neighbors(self, node: int) -> tuple[int, ...]:
        """Whom ``node`` sends to, in node order."""
        return self._out[node]

    @cached_property
    def in_degrees(self) -> tuple[int, ...]:
        """How many each node hears."""
        return tuple(len(heard) for heard in self._in)

    @cached_property
    def out_degrees(self) -> tuple[int, ...]:
        """How many each node sends to."""
        return tuple(len(targets) for targets in self._out)

    @cached_property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """Sorted pairs ``(i, j)`` with i < j, or all arcs in order where the graph is directed."""
        return tuple(sorted((i, j) for i, j in self.arcs if self.directed or i < j))

    @cached_property
    def cut_off(self) -> tuple[int, ...]:
        """The nodes that cannot hear from node 0, or that node 0 cannot hear from, in order."""
        both_ways = _reach(self._out) & _reach(self._in)
        return tuple(node for node in range(self.nodes) if node not in both_ways)

    @property
    def connected(self) -> bool:
        """Whether every node reaches every other one (strong connectivity, if directed)."""
        return not self.cut_off


def _reach(neighbors: tuple[tuple[int, ...], ...]) -> set[int]:
    """The nodes that a walk from node 0 can come to."""
    reached, frontier = {0}, [0]
    while frontier:
        for neighbor in neighbors[frontier.pop()]:
            if neighbor not in reached:
                reached.add(neighbor)
                frontier.append(neighbor)
    return reached


@dataclass(frozen=True, eq=False)
class Phase:
    """A graph and the weights with which its nodes average.

    ``weights`` is (nodes, nodes) float64, copied and kept read-only: ``[i, j]`` is what node i
    gives to the value of j, ``[i, i]`` its own share. Weights lie on the graph's arcs and the
    diagonal only; rows sum to 1, or columns where the weights are column-stochastic (push-sum), or
    both. Raises ValueError for weights that break this.
    """

    graph: Graph
    weights: Matrix

    def __post_init__(self) -> None:
        n = self.graph.nodes
        weights = np.array(self.weights, dtype=np.float64)
        if weights.shape != (n, n):
            shape = " x ".join(map(str, weights.shape))
            raise ValueError(f"weights for {n} nodes are {n} x {n}, not {shape}")
        if not np.isfinite(weights).all():
            raise ValueError("weights must be finite numbers")
        astray = np.argwhere((weights != 0) & ~self.graph.adjacency & ~np.eye(n, dtype=np.bool_))
        if len(astray):
            i, j = astray[0].tolist()
            raise ValueError(
                f"node {i} gives weight {weights[i, j]:g} to node {j}, which does not send to it"
            )
        if stochasticity(weights) is None:
            row = int(np.abs(weights.sum(axis=1) - 1).argmax())
            column = int(np.abs(weights.sum(axis=0) - 1).argmax())
            raise ValueError(
                "neither the rows nor the columns of the weights sum to 1: row "
                f"{row} sums to {weights[row].sum():g}, column {column} to "
                f"{weights[:, column].sum():g}"
            )
        weights.setflags(write=False)
        object.__setattr__(self, "weights", weights)

    @cached_property
    def stochastic(self) -> Stochastic:
        """Which sums of the weights are 1."""
        kind = stochasticity(self.weights)
        assert kind is not None
        return kind

    @property
    def even(self) -> bool:
        """Whether both ends of every edge give each other the same weight."""
        symmetric = np.allclose(self.weights, self.weights.T, rtol=0, atol=SUM_TOLERANCE)
        return symmetric and not self.graph.directed

    @cached_property
    def _plain_chi(self) -> tuple[float, float]:
        """chi_1 and chi_2 with the rate 1 on every edge."""
        return chi_and_gap(self.graph.adjacency.astype(np.float64), self.graph.adjacency)[:2]

    def chi(self, edges: int | None = None) -> tuple[float, float]:
        """chi_1 and chi_2 with the rate 1/``edges`` on every edge, or else with the weights."""
        weights = self.weights[self.graph.adjacency]
        if edges is None and not (len(weights) and np.ptp(weights) == 0 < weights[0]):
            return chi_and_gap(self.weights, self.graph.adjacency)[:2]
        rate = float(weights[0]) if edges is None else 1 / edges
        return self._plain_chi[0] / rate, self._plain_chi[1] / rate


@dataclass(frozen=True, eq=False)
class Schedule:
    """Who sends to whom in which round: round t has ``phases[(t // every) % len(phases)]``.

    Raises ValueError for no phases, for phases of different size, and for row-stochastic beside
    column-stochastic ones, whose product is neither.
    """

    phases: tuple[Phase, ...]
    #: rounds that a phase lasts
    every: int = 1
    #: what faults may put in its place: their links are there from the start
    others: tuple[Schedule, ...] = ()

    def __post_init__(self) -> None:
        if not self.phases:
            raise ValueError("a schedule needs at least one phase")
        if self.every < 1:
            raise ValueError(f"a phase lasts at least one round, got {self.every}")
        if len({phase.graph.nodes for phase in self.phases}) > 1:
            raise ValueError("all phases of a schedule must have the same nodes")
        if {"row", "column"} <= {phase.stochastic for phase in self.phases}:
            raise ValueError("phases with row-stochastic and with column-stochastic weights")

    def at(self, round: int) -> Phase:
        """The phase of a round."""
        return self.phases[(round // self.every) % len(self.phases)]

    @property
    def nodes(self) -> int:
        """The number of nodes."""
        return self.phases[0].graph.nodes

    @property
    def rounds(self) -> int:
        """Rounds in one period."""
        return self.every * len(self.phases)

    @property
    def static(self) -> bool:
        """Whether every round has the same graph and weights."""
        return len(self.phases) == 1

    @property
    def stochastic(self) -> Stochastic:
        """What holds for the weights of every phase, and so for their products."""
        less: set[Stochastic] = {phase.stochastic for phase in self.phases} - {"doubly"}
        return less.pop() if less else "doubly"

    @cached_property
    def union(self) -> Graph:
        """All arcs of a period and of ``others`` in one graph; directed as soon as one is."""
        phases = [phase.graph for phase in self.phases]
        return _united([*phases, *(other.union for other in self.others)])

    def facts(self) -> GraphFacts:
        """The constants of the theory; computed once.

        The spectral gap is that of one round, averaged over a period where there is more than one
        phase (:func:`~tidings_coordinator.topology.spectra.spectral_gap`). ``chi_1``, ``chi_2`` and
        ``eigengap`` are those of the union of all phases, nan where it is directed or not
        connected.
        """
        return self._facts

    @cached_property
    def _facts(self) -> GraphFacts:
        union = _united([phase.graph for phase in self.phases])
        adjacency, edges = union.adjacency, len(union.edges)
        nothing = np.nan, np.nan, np.nan
        undirected = union.connected and not union.directed
        found = chi_and_gap(adjacency / max(edges, 1), adjacency) if undirected else nothing
        totals = [(p.weights * p.graph.adjacency).sum() / 2 for p in self.phases if p.even]
        return GraphFacts(
            stochastic=self.stochastic,
            nodes=self.nodes,
            edges=edges,
            arcs=sum(len(phase.graph.arcs) for phase in self.phases) / len(self.phases),
            directed=union.directed,
            static=self.static and not self.others,
            spectral_gap=spectral_gap([phase.weights for phase in self.phases], self.every),
            chi_1=found[0],
            chi_2=found[1],
            worst_chi=self._worst_chi(edges) if self.others or not self.static else found[:2],
            weights_chi=self._worst_chi(None),
            weights_total=float(np.mean(totals)) if len(totals) == len(self.phases) else np.nan,
            eigengap=found[2],
        )

    def _worst_chi(self, edges: int | None) -> tuple[float, float]:
        """Over all graphs that may be in place; rates are the weights where ``edges`` is None."""
        worst = 0.0, 0.0
        for phase in (*self.phases, *(phase for other in self.others for phase in other.phases)):
            graph = phase.graph
            if graph.directed or (edges is None and not phase.even):
                return np.nan, np.nan
            chi = phase.chi(edges) if graph.connected else (np.inf, np.inf)
            worst = max(worst[0], chi[0]), max(worst[1], chi[1])
        return worst


def _united(graphs: Sequence[Graph]) -> Graph:
    if len(graphs) == 1:
        return graphs[0]
    arcs = frozenset[tuple[int, int]]().union(*(graph.arcs for graph in graphs))
    return Graph(graphs[0].nodes, arcs, any(graph.directed for graph in graphs))
