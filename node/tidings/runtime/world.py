"""What a node needs of the world around it: real time and processes, or the simulator."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeVar

from tidings.api.node import Clock
from tidings.links.shape import LinkShape
from tidings.runtime.checkpoint import Store
from tidings.runtime.oracle import Oracle
from tidings.runtime.plan import ArmedFault
from tidings.transports.base import Transport
from tidings.v1 import records_pb2 as records

R = TypeVar("R")


class World(ABC):
    """Time, computing and records. Waiting itself is asyncio's, on the loop's own clock."""

    clock: Clock
    transport: Transport
    #: whether computing takes the time it takes; if not, it costs what the plan says
    native: bool
    #: loop seconds per emulated second
    time_scale: float = 1.0
    #: shows omniscient attackers what all send, where that is possible
    oracle: Oracle | None = None
    #: for the node's checkpoints, where there is a place for them
    store: Store | None = None

    @abstractmethod
    async def compute(self, work: Callable[[], R], cost_s: float | None, factor: float) -> R:
        """Run ``work``, taking ``cost_s`` emulated seconds (None: as long as it takes)."""

    @abstractmethod
    async def evaluate(self, work: Callable[[], records.Evaluation]) -> None:
        """Have ``work`` done beside the run and its row recorded; waits while too many are due."""

    @abstractmethod
    async def aside(self, work: Callable[[], R]) -> R:
        """Do what takes real time and no emulated one, without holding up the loop."""

    def reshape(self, target: int, shape: LinkShape) -> None:
        """The link to ``target`` is to be like that from now on; OSError where it is not."""
        self.transport.reshape(target, shape)

    def wire_bytes(self, target: int) -> int | None:
        """What the kernel says has passed to ``target``; None where it does not impose the link."""
        return None

    @abstractmethod
    def fault(self, change: records.FaultChange) -> None:
        """Write down that a fault has come or gone."""

    @abstractmethod
    def arrived(self, armed: ArmedFault, round_: int) -> None:
        """The node is where something from outside is to hit it, and stands still."""

    @abstractmethod
    def event(self, event: records.Event) -> None:
        """Write an event into the run's log."""
