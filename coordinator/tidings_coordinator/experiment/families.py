"""The families of plug-ins that an experiment file can choose from."""

from __future__ import annotations

from tidings.api import Aggregator, Attack, Compressor, Participation, Partition, Problem, Protocol
from tidings.faults.base import Fault
from tidings.registry import Plugin
from tidings_coordinator.checks.base import Check
from tidings_coordinator.launchers.base import Launcher
from tidings_coordinator.topology.base import Topology
from tidings_coordinator.topology.mixing.base import Mixing

#: the base class of each family, by the family's name
FAMILIES: dict[str, type[Plugin]] = {
    base.registry.family: base
    for base in (
        Protocol,
        Compressor,
        Aggregator,
        Attack,
        Topology,
        Mixing,
        Problem,
        Partition,
        Participation,
        Launcher,
        Check,
        Fault,
    )
}
