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
from tidings_coordinator.launchers.capabilities import Ability, Capabilities, Shown
from tidings_coordinator.records.shipping import Request

_KUBERNETES = "tests/process/test_kubernetes.py"
_NOTE = "with `followed: true`, by who follows"


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
    #: whether somebody follows what this process prints, and kills nodes and starts them again when
    #: it asks for it there, as `--launcher kubernetes` does
    followed: bool = False

    anonymous = True
    can = Capabilities(
        runs=Shown("tests/process/test_external.py::test_nodes_that_are_started_by_hand"),
        abilities={
            "tls": Shown(
                "tests/process/test_security.py::test_only_the_runs_token_opens_and_only_once_a_seat"
            ),
            "kill": Shown(f"{_KUBERNETES}::test_a_crash_that_was_asked_for_is_no_failure", _NOTE),
            "restart": Shown(f"{_KUBERNETES}::test_a_pod_that_was_evicted_comes_back", _NOTE),
            "outlive": Shown("tests/process/test_adopt.py::test_nodes_go_on_and_are_taken_over"),
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

    def lacks(self, ability: Ability) -> str:
        """Nobody is there to lay hands on nodes, unless the file says so."""
        if ability in ("kill", "restart") and not self.followed:
            return "nodes are out of its reach without launcher.followed"
        if ability == "outlive" and self.followed:
            return "who follows it does not follow the next one"
        return ""

    def group(self) -> NodeGroup:
        """Nodes that come and go by themselves, or by somebody who listens."""
        return FollowedNodes() if self.followed else ExternalNodes()


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


class FollowedNodes(ExternalNodes):
    """What this process cannot do to them, it asks of whoever reads its output."""

    async def kill(self, node: int, comes_back: bool) -> None:
        """Ask for it; where nobody listens the node lives on, and the run fails for that."""
        print(Request(node, comes_back).line, flush=True)

    async def restart(self, node: int) -> None:
        """Asked for already: who was told that it comes back sees to it."""
