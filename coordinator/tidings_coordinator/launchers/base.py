"""Where a run's nodes live: as processes here, in one process on virtual time, ..."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from tidings.registry import Plugin, Registry


@dataclass(frozen=True)
class Exit:
    """A node has ended."""

    node: int
    #: exit code, or minus the number of the signal that killed it
    code: int

    def __str__(self) -> str:
        if self.code < 0:
            import signal

            return f"killed by {signal.Signals(-self.code).name}"
        return f"exit code {self.code}"


@dataclass(frozen=True)
class Order:
    """What a launcher is asked to start."""

    run: str
    nodes: int
    #: of the coordinator, host:port
    coordinator: str
    #: a directory for the nodes' logs
    logs: Path
    #: to be loaded once, where that can be shared
    protocol: dict[str, Any]
    problem: dict[str, Any]
    #: what each node must find in its environment to be let in; secret, never to be in arguments
    join: Mapping[str, str] = field(default_factory=dict, repr=False)


class NodeGroup(ABC):
    """The started nodes of one run."""

    #: nodes that have ended, in that order
    exits: asyncio.Queue[Exit]

    @abstractmethod
    async def start(self, order: Order) -> None:
        """Start all nodes; RunError where that cannot be done."""

    @abstractmethod
    async def signal(self, node: int, number: int) -> None:
        """Send a node a signal."""

    @abstractmethod
    async def stop(self) -> None:
        """End what still runs, at once; nothing is left behind."""


def check_port(port: int) -> None:
    """ValueError for what is no port."""
    if not 0 <= port < 1 << 16:
        raise ValueError(f"a port lies between 0 and 65535, got {port}")


class Launcher(Plugin):
    """A way to run an experiment."""

    registry: ClassVar[Registry[Launcher]]
    #: whether time is virtual: nothing is started, the simulator runs the plans itself
    virtual: ClassVar[bool] = False
    #: where the coordinator listens for nodes
    host: str = "127.0.0.1"
    port: int = 0
    #: whether nodes may join without naming the run, for they cannot know it
    anonymous: ClassVar[bool] = False

    @property
    def join_s(self) -> float:
        """Wall seconds in which all nodes must have joined."""
        return 120.0

    def group(self) -> NodeGroup:
        """A group of nodes, not started yet."""
        raise NotImplementedError(f"the launcher '{self.kind}' starts no nodes")


launchers: Registry[Launcher] = Registry("launchers", "tidings_coordinator.launchers")
Launcher.registry = launchers
