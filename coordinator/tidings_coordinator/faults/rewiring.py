"""The graphs that events put in the place of the experiment's own."""

from __future__ import annotations

from tidings.errors import ConfigError
from tidings.faults.graph_rewire import GraphRewire
from tidings.runtime.plan import derive_rng
from tidings_coordinator.experiment.model import Experiment
from tidings_coordinator.topology.base import Topology
from tidings_coordinator.topology.graph import Schedule

Path = tuple[str | int, ...]


def rewirings(experiment: Experiment) -> dict[str, tuple[Schedule, Path]]:
    """By event, with the key that says it: a graph as if it were the experiment's own.

    ConfigError for what is no topology, and for one that the protocol cannot go over to.
    """
    roles = experiment.topology.roles(experiment.nodes)
    found: dict[str, tuple[Schedule, Path]] = {}
    for index, event in enumerate(experiment.faults):
        if not isinstance(event.fault, GraphRewire):
            continue
        path: Path = ("faults", index, "with", "topology")
        try:
            topology = Topology.parse(event.fault.topology)
            rng = derive_rng(experiment.seed, "topology", event.id)
            found[event.id] = topology.schedule(experiment.nodes, rng), path
        except ConfigError as error:
            raise ConfigError(error.message, (*path, *error.path)) from error
        except ValueError as error:
            raise ConfigError(str(error), path) from error
        served = experiment.protocol.ends_with == "server"
        if served and topology.roles(experiment.nodes) != roles:
            message = f"nodes have other roles on '{topology.kind}' than at the start"
            raise ConfigError(message, path)
        if experiment.protocol.static_graph:
            message = f"{experiment.protocol.kind} needs one graph for the whole run"
            raise ConfigError(message, (*path[:2], "fault"))
    return found
