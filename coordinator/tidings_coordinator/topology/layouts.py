"""Where to draw the nodes of a graph: positions (n, 2) float64 in the unit square, y upwards."""

from __future__ import annotations

import numpy as np

from tidings_coordinator.topology.graph import Graph
from tidings_coordinator.topology.spectra import Matrix

_STEPS = 60


def circle(nodes: int) -> Matrix:
    """On a circle, node 0 at the top, clockwise."""
    angle = 2 * np.pi * np.arange(nodes) / nodes
    return 0.5 + 0.5 * np.column_stack([np.sin(angle), np.cos(angle)])


def hub(nodes: int) -> Matrix:
    """Node 0 in the middle, the others around it."""
    return np.vstack([[[0.5, 0.5]], circle(nodes - 1)])


def row(nodes: int) -> Matrix:
    """On a horizontal line, from left to right."""
    return np.column_stack([_spread(nodes), np.full(nodes, 0.5)])


def grid(rows: int, cols: int) -> Matrix:
    """In rows from the top, each from left to right."""
    node = np.arange(rows * cols)
    return np.column_stack([_spread(cols)[node % cols], 1 - _spread(rows)[node // cols]])


def layered(nodes: int) -> Matrix:
    """A binary tree in heap order (the parent of i is (i - 1) // 2), the root at the top."""
    depth = np.array([(node + 1).bit_length() - 1 for node in range(nodes)])
    place = np.arange(nodes) + 1 - 2**depth
    return np.column_stack([(place + 0.5) / 2**depth, 1 - depth / max(1, depth[-1])])


def spring(graph: Graph) -> Matrix:
    """By forces (Fruchterman & Reingold 1991), started from the circle: always the same picture."""
    n = graph.nodes
    place = circle(n)
    joined = graph.adjacency | graph.adjacency.T
    reach = 1 / np.sqrt(n)
    for step in np.linspace(0.1, 0.002, _STEPS):
        x, y = place.T
        distance = np.maximum(np.hypot(x[:, None] - x, y[:, None] - y), 1e-3)
        # Repulsion reach^2 / d of all pairs, attraction d^2 / reach along edges; / d to normalise.
        pull = reach**2 / distance**2 - joined * distance / reach
        force = pull.sum(axis=1, keepdims=True) * place - pull @ place
        length = np.maximum(np.linalg.norm(force, axis=1, keepdims=True), 1e-9)
        place = place + force / length * np.minimum(length, step)
    return _fitted(place)


def _spread(count: int) -> Matrix:
    return np.linspace(0, 1, count) if count > 1 else np.array([0.5])


def _fitted(place: Matrix) -> Matrix:
    """Moved and scaled into the unit square, aspect kept."""
    low, high = place.min(axis=0), place.max(axis=0)
    size = max(float((high - low).max()), 1e-12)
    fitted: Matrix = np.clip(0.5 + (place - (low + high) / 2) / size, 0, 1)
    return fitted
