"""Which nodes and links an event means: ``[0, "2..4", hub]``, ``random(20%)``, ``0<->1``, ...

Random choices come from the run's seed and the event's name, so they are the same every time.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tidings.errors import nearest
from tidings.units import Ratio
from tidings_coordinator.experiment.selectors import Resolver, selects
from tidings_coordinator.faults.firing import Arc
from tidings_coordinator.topology.graph import Graph

_CALL = re.compile(r"([a-z_]+)\s*(?:\((.*)\))?")


@dataclass
class Chooser:
    """Reads the ``on`` of one event, or of one occurrence. ValueError for what makes no sense."""

    graph: Graph
    groups: Mapping[str, Sequence[int]]
    byzantine: Sequence[int]
    rng: np.random.Generator

    # -- nodes -------------------------------------------------------------------------------------

    def nodes(self, on: Sequence[int | str]) -> tuple[int, ...]:
        """The nodes that are meant, in order."""
        found: set[int] = set()
        without: set[int] = set()
        for item in on:
            name, argument = _call(item)
            if name == "except":
                without |= set(self.nodes([_number(argument)]))
            elif name in self._choices:
                found |= self._choices[name](argument)
            else:
                found |= self._named(item)
        if not found and without:
            found = set(range(self.graph.nodes))
        if not found - without:
            raise ValueError("this selects no node")
        return tuple(sorted(found - without))

    @cached_property
    def _choices(self) -> dict[str, Callable[[str | None], set[int]]]:
        n, graph = self.graph.nodes, self.graph
        degree = {i: len(graph.in_neighbors(i)) for i in range(n)}
        return {
            "random": lambda amount: self._some(amount, n),
            "one": lambda _: self._draw(1),
            "minority": lambda _: self._draw((n - 1) // 2),
            "minority_third": lambda _: self._draw(max(1, (n - 1) // 3)),
            "majority": lambda _: self._draw(n // 2 + 1),
            "hub": lambda k: self._first(k, lambda i: -degree[i]),
            "leaf": lambda k: self._first(k, lambda i: degree[i]),
            "byzantine": lambda _: set(self.byzantine),
            "honest": lambda _: set(range(n)) - set(self.byzantine),
        }

    def _named(self, item: int | str) -> set[int]:
        resolver = Resolver(self.groups, self.graph.nodes)
        try:
            return resolver.members(_number(item))
        except ValueError as error:
            if isinstance(item, str) and not item[:1].isdigit():
                known = [*self._choices, *self.groups, "all", "except"]
                raise ValueError(f"unknown choice '{item}'; {nearest(item, known)}") from error
            raise

    def _some(self, amount: str | None, of: int) -> set[int]:
        if amount is None:
            raise ValueError("write how many: 'random(2)' or 'random(20%)'")
        return self._draw(_amount(amount, of))

    def _draw(self, count: int) -> set[int]:
        if not 1 <= count <= self.graph.nodes:
            raise ValueError(f"cannot choose {count} of {self.graph.nodes} nodes")
        return {int(i) for i in self.rng.choice(self.graph.nodes, count, replace=False)}

    def _first(self, count: str | None, key: Callable[[int], int]) -> set[int]:
        k = 1 if count is None else _amount(count, self.graph.nodes)
        return set(sorted(range(self.graph.nodes), key=lambda i: (key(i), i))[:k])

    # -- links -------------------------------------------------------------------------------------

    def arcs(self, on: Sequence[int | str]) -> tuple[Arc, ...]:
        """The directed links that are meant, in order."""
        arcs = sorted(self.graph.arcs)
        found: set[Arc] = set()
        for item in on:
            name, argument = _call(item)
            if name == "random" and argument is not None:
                count = _amount(argument, len(arcs))
                chosen = self.rng.choice(len(arcs), min(count, len(arcs)), replace=False)
                found |= {arcs[int(k)] for k in chosen}
            elif name == "cutset":
                found |= set(crossing(self.graph, [self._side()], False))
            elif isinstance(item, str) and "-" in item:
                Resolver(self.groups, self.graph.nodes).require_links(item)
                found |= {arc for arc in arcs if selects(item, self.groups, *arc)}
            elif item == "all":
                found |= set(arcs)
            else:
                raise ValueError(
                    f"'{item}' names no links; write '0->1', '0<->1', 'all', 'random(20%)' "
                    "or 'cutset'"
                )
        if not found:
            raise ValueError("this selects no link of the topology")
        return tuple(sorted(found))

    def _side(self) -> set[int]:
        """One side of a sparse cut: the signs of the Laplacian's second eigenvector."""
        n = self.graph.nodes
        adjacency = np.zeros((n, n))
        for i, j in self.graph.arcs:
            adjacency[i, j] = adjacency[j, i] = 1.0
        laplacian = np.diag(adjacency.sum(axis=1)) - adjacency
        second = np.linalg.eigh(laplacian)[1][:, 1]
        # ties and signs must not depend on the library
        order = sorted(range(n), key=lambda i: (round(float(second[i]), 9), i))
        half = set(order[: n // 2])
        return half if 0 in half else set(range(n)) - half

    # -- partitions --------------------------------------------------------------------------------

    def partition(
        self, shape: str | None, groups: Sequence[Sequence[int | str]], oneway: bool
    ) -> tuple[Arc, ...]:
        """The links that a partition cuts."""
        n = self.graph.nodes
        if groups:
            parts = [set(self.nodes(group)) for group in groups]
            if sum(map(len, parts)) != len(set().union(*parts)):
                raise ValueError("a node is in more than one group")
            found = crossing(self.graph, parts, oneway)
        elif shape == "bridge":
            found = self._bridge()
        elif shape == "majorities_ring":
            found = self._majorities_ring()
        else:
            size = {"halves": n // 2, "one": 1, "minority_third": max(1, (n - 1) // 3)}[str(shape)]
            found = crossing(self.graph, [self._draw(size)], oneway)
        if not found:
            raise ValueError("this cuts no link of the topology")
        return found

    def _bridge(self) -> tuple[Arc, ...]:
        order = [int(i) for i in self.rng.permutation(self.graph.nodes)]
        bridge, rest = order[0], order[1:]
        left = set(rest[: len(rest) // 2])
        return tuple(
            (i, j)
            for i, j in sorted(self.graph.arcs)
            if bridge not in (i, j) and (i in left) != (j in left)
        )

    def _majorities_ring(self) -> tuple[Arc, ...]:
        """Each node keeps those within reach on a random ring, itself included a majority."""
        n = self.graph.nodes
        place = {int(node): k for k, node in enumerate(self.rng.permutation(n))}
        reach = (n // 2 + 1) // 2

        def far(i: int, j: int) -> bool:
            steps = abs(place[i] - place[j])
            return min(steps, n - steps) > reach

        return tuple(arc for arc in sorted(self.graph.arcs) if far(*arc))


def crossing(graph: Graph, parts: Sequence[set[int]], oneway: bool) -> tuple[Arc, ...]:
    """The links between different parts; nodes in none of them are one more part."""

    def part(node: int) -> int:
        return next((k for k, members in enumerate(parts) if node in members), len(parts))

    return tuple(
        (i, j) for i, j in sorted(graph.arcs) if part(i) != part(j) and (not oneway or part(i) == 0)
    )


def _call(item: int | str) -> tuple[str, str | None]:
    found = _CALL.fullmatch(item.strip()) if isinstance(item, str) else None
    return (found[1], found[2]) if found else ("", None)


def _number(item: int | str | None) -> int | str:
    if isinstance(item, str):
        text = item.strip()
        return int(text) if text.isdecimal() else text.replace(" ", "")
    if item is None:
        raise ValueError("write which: 'except(3)'")
    return item


def _amount(text: str, of: int) -> int:
    text = text.strip()
    if text.isdecimal():
        return int(text)
    return math.ceil(Ratio.parse(text) * of - 1e-9)
