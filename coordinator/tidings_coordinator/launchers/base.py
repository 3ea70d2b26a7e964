"""Where a run's nodes live: as processes here, in one process on virtual time, ..."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tidings.errors import RunError
from tidings.links.shape import LinkShape
from tidings.registry import Plugin, Registry
from tidings.runtime.plan import TransportKind
from tidings_coordinator.control.watch import Watcher

if TYPE_CHECKING:
    from tidings_coordinator.planning import RunPlan
    from tidings_coordinator.records.directory import RunDirectory
    from tidings_coordinator.records.result import Ending


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
    #: the run directory
    directory: Path
    #: to be loaded once, where that can be shared
    protocol: dict[str, Any]
    problem: dict[str, Any]
    #: whether the kernel is to impose the links
    kernel: bool = False
    #: what attackers do, where there are any
    attack: dict[str, Any] | None = None
    #: what wants to be scraped, as http_sd; empty where the run is not watched
    discovery: str = ""
    #: what each node must find in its environment to be let in; secret, never to be in arguments
    join: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def logs(self) -> Path:
        """A directory for the nodes' logs."""
        return self.directory / "logs"


class NodeGroup(ABC):
    """The started nodes of one run."""

    #: nodes that have ended, in that order, or what has become of them all
    exits: asyncio.Queue[Exit | RunError]

    async def prepare(self, run: str, nodes: int) -> str | None:
        """Make what must be there before the coordinator listens; where it is to listen.

        None: where the launcher says. UserError where it cannot be made.
        """
        return None

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
        """End what still runs, at once; nothing is left behind. May be called more than once."""


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
    #: whether the coordinator runs elsewhere too, so that the launcher carries out the whole run
    remote: ClassVar[bool] = False
    #: whether nodes have a network that is made for the run, with addresses that are not loopback's
    own_network: bool = False
    #: where the coordinator listens for nodes
    host: str = "127.0.0.1"
    port: int = 0
    #: who can impose the links: the nodes' own pacers ("user"), the kernel ("kernel")
    enforces: ClassVar[tuple[str, ...]] = ("user",)
    #: whether nodes may join without naming the run, for they cannot know it
    anonymous: ClassVar[bool] = False

    @property
    def join_s(self) -> float:
        """Wall seconds in which all nodes must have joined."""
        return 120.0

    def check_machine(self, shapes: Sequence[LinkShape] | None) -> None:
        """UserError for what this machine lacks; ``shapes``: links that the kernel is to impose."""

    def check(self, nodes: int) -> None:
        """UserError where that many nodes cannot run; called before anything is started."""
        return

    def delegate(self) -> Delegate | None:
        """Who conducts the run instead of this process, if anybody does."""
        return None

    def group(self) -> NodeGroup:
        """A group of nodes, not started yet."""
        raise NotImplementedError(f"the launcher '{self.kind}' starts no nodes")

    def carry_out(self, run: RunPlan, directory: RunDirectory, watcher: Watcher) -> Ending | None:
        """Where ``remote``: the whole run; None where ``directory`` has its result already."""
        raise NotImplementedError(f"the launcher '{self.kind}' has its coordinator here")


launchers: Registry[Launcher] = Registry("launchers", "tidings_coordinator.launchers")
Launcher.registry = launchers
