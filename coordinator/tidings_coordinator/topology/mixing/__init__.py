"""Mixings: the weights with which the nodes of a graph average, one file each."""

from tidings_coordinator.topology.mixing.base import Mixing, mixings

__all__ = ["Mixing", "mixings"]
