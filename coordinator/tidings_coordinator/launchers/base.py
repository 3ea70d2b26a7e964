"""Where a run's nodes live: as processes here, in one process on virtual time, ..."""

from __future__ import annotations

import asyncio
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tidings.errors import RunError
from tidings.registry import Plugin, Registry
from tidings_coordinator.launchers.capabilities import Ability, Capabilities

if TYPE_CHECKING:
    from tidings_coordinator.planning import RunPlan
    from tidings_coordinator.records.keeping import Commission


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
    #: where nodes are to write their checkpoints, a folder each; None for no checkpoints
    checkpoints: Path | None = None
    #: what attackers do, where there are any
    attack: dict[str, Any] | None = None
    #: what wants to be scraped, as http_sd; empty where the run is not watched
    discovery: str = ""
    #: wall seconds for which the nodes go on without a coordinator
    grace_s: float = 0.0
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

    async def adopt(self, order: Order) -> None:
        """Take over nodes that another process has started by this order, in place of ``start``.

        RunError where they cannot be found.
        """
        return

    def joined(self, pids: Mapping[int, int]) -> None:
        """All nodes have joined, and these are their processes, wherever they run."""
        return

    @abstractmethod
    async def signal(self, node: int, number: int) -> None:
        """Send a node a signal."""

    async def kill(self, node: int, comes_back: bool) -> None:
        """Kill a node; ``comes_back``: it will be restarted later."""
        await self.signal(node, signal.SIGKILL)

    async def restart(self, node: int) -> None:
        """Start a node whose process has ended again, in the same place.

        NotImplementedError where that is out of reach.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot start a node again")

    @abstractmethod
    async def stop(self) -> None:
        """End what still runs, at once; nothing is left behind. May be called more than once."""


def check_port(port: int) -> None:
    """ValueError for what is no port."""
    if not 0 <= port < 1 << 16:
        raise ValueError(f"a port lies between 0 and 65535, got {port}")


#: conducts a whole run; the run directory and its result
Delegate = Callable[["Commission"], tuple[Path, dict[str, Any]]]


class Launcher(Plugin):
    """A way to run an experiment."""

    registry: ClassVar[Registry[Launcher]]
    #: what it can do, whatever its settings
    can: ClassVar[Capabilities] = Capabilities()
    #: whether nodes have a network that is made for the run, with addresses that are not loopback's
    own_network: bool = False
    #: where the coordinator listens for nodes
    host: str = "127.0.0.1"
    port: int = 0
    #: whether nodes may join without naming the run, for they cannot know it
    anonymous: ClassVar[bool] = False

    @property
    def join_s(self) -> float:
        """Wall seconds in which all nodes must have joined."""
        return 120.0

    @property
    def grace_s(self) -> float:
        """Wall seconds for which nodes go on after they have lost their coordinator."""
        return 0.0

    @property
    def virtual(self) -> bool:
        """Whether time is virtual: nothing is started, the simulator runs the plans itself."""
        return self.as_set.transport == "memory"

    @property
    def as_set(self) -> Capabilities:
        """What it can do with the settings that it has here."""
        return self.can

    def lacks(self, ability: Ability) -> str:
        """Why it cannot do it as it is set here, although it can otherwise; '' where it can."""
        return ""

    def check(self, run: RunPlan) -> None:
        """ConfigError, with the key, for what would keep the run from starting here.

        Called before anything is started, and after what the launcher ``can`` do was compared with
        what the experiment asks for.
        """
        return

    def delegate(self) -> Delegate | None:
        """Who conducts the whole run instead of this process, if anybody does."""
        return None

    def group(self) -> NodeGroup:
        """A group of nodes, not started yet."""
        raise NotImplementedError(f"the launcher '{self.kind}' starts no nodes")


launchers: Registry[Launcher] = Registry("launchers", "tidings_coordinator.launchers")
Launcher.registry = launchers
