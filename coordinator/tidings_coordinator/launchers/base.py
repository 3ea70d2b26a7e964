"""Where a run's nodes live: as processes here, in one process on virtual time, ..."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tidings.errors import RunError
from tidings.registry import Plugin, Registry
from tidings.runtime.plan import TransportKind
from tidings_coordinator.control.watch import Watcher

if TYPE_CHECKING:
    from tidings_coordinator.planning import RunPlan


@dataclass(frozen=True)
class Exit:
    """A node has ended."""

    node: int
    #: exit code, or minus the number of the signal that killed it; None where that is not known
    code: int | None

    def __str__(self) -> str:
        if self.code is None:
            return "its process has ended"
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


class NodeGroup(ABC):
    """The started nodes of one run."""

    #: nodes that have ended, in that order, or what has become of them all
    exits: asyncio.Queue[Exit | RunError]

    @abstractmethod
    async def start(self, order: Order) -> None:
        """Start all nodes; RunError where that cannot be done."""

    def joined(self, pids: Mapping[int, int]) -> None:
        """All nodes have joined, and these are their processes, wherever they run."""
        return

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


#: (run, run directory, watcher) -> the run directory and its result
Delegate = Callable[["RunPlan", Path, Watcher], tuple[Path, dict[str, Any]]]


class Launcher(Plugin):
    """A way to run an experiment."""

    registry: ClassVar[Registry[Launcher]]
    #: whether time is virtual: nothing is started, the simulator runs the plans itself
    virtual: ClassVar[bool] = False
    #: what carries messages between its nodes
    transport: ClassVar[TransportKind] = "grpc"
    #: where the coordinator listens for nodes
    host: str = "127.0.0.1"
    port: int = 0
    #: whether nodes may join without naming the run, for they cannot know it
    anonymous: ClassVar[bool] = False

    @property
    def join_s(self) -> float:
        """Wall seconds in which all nodes must have joined."""
        return 120.0

    def check(self, nodes: int) -> None:
        """UserError where that many nodes cannot run; called before anything is started."""
        return

    def delegate(self) -> Delegate | None:
        """Who conducts the run instead of this process, if anybody does."""
        return None

    def group(self) -> NodeGroup:
        """A group of nodes, not started yet."""
        raise NotImplementedError(f"the launcher '{self.kind}' starts no nodes")


launchers: Registry[Launcher] = Registry("launchers", "tidings_coordinator.launchers")
Launcher.registry = launchers
