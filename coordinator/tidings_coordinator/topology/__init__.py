"""Graphs that carry the models, and the weights with which their nodes average."""

from tidings_coordinator.topology.base import RandomTopology, Topology, topologies
from tidings_coordinator.topology.describe import Description, describe
from tidings_coordinator.topology.graph import Graph, Phase, Schedule
from tidings_coordinator.topology.mixing.base import Mixing, mixings

__all__ = [
    "Description",
    "Graph",
    "Mixing",
    "Phase",
    "RandomTopology",
    "Schedule",
    "Topology",
    "describe",
    "mixings",
    "topologies",
]
