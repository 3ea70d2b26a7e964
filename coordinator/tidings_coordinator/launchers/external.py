"""Nodes that somebody else starts: a script, a container orchestrator, a batch system."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from tidings.units import Duration
from tidings_coordinator.launchers.base import (
    Launcher,
    NodeGroup,
    Order,
    check_port,
    launchers,
)
from tidings_coordinator.launchers.capabilities import Capabilities, Shown


@launchers.register("external")
@dataclass(frozen=True)
class External(Launcher):
    """Waits for nodes that are started elsewhere, each by ``tidings-node --coordinator ...``."""

    #: where the coordinator listens
    host: str = "127.0.0.1"
    #: the coordinator's port; 0 for any free one
    port: int = 7600
    #: whether the nodes have a network that is made for the run
    own_network: bool = False
    #: how long it waits for the nodes
    join: Duration = Duration(600.0)
    #: how long nodes go on without a coordinator, for one that `tidings adopt` starts in its place
    grace: Duration = Duration(0.0)

    anonymous = True
    can = Capabilities(
        runs=Shown("tests/process/test_external.py::test_nodes_that_are_started_by_hand"),
        abilities={
            "tls": Shown(
                "tests/process/test_security.py::test_only_the_runs_token_opens_and_only_once_a_seat"
            ),
        },
    )

    def __post_init__(self) -> None:
        check_port(self.port)

    @property
    def join_s(self) -> float:
        """As long as the experiment says."""
        return float(self.join)

    @property
    def grace_s(self) -> float:
        """As long as the experiment says."""
        return float(self.grace)

    def group(self) -> NodeGroup:
        """Nodes that come and go by themselves."""
        return ExternalNodes()


class ExternalNodes(NodeGroup):
    """Nobody's children: they end when the coordinator tells them to, or hangs up."""

    def __init__(self) -> None:
        self.exits = asyncio.Queue()

    async def start(self, order: Order) -> None:
        """Nothing to start."""

    async def signal(self, node: int, number: int) -> None:
        """They are out of reach."""
        raise NotImplementedError("the launcher 'external' cannot signal nodes")

    async def stop(self) -> None:
        """They end by themselves when the coordinator hangs up."""
