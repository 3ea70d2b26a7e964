"""Links over MPI: one message a frame where that is possible, all calls from one thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from tidings.links.shape import LinkShape, NicShape
from tidings.transports.identity import Identity
from tidings.transports.in_links import InLinks, NodeEnd
from tidings.transports.io_thread import IoThread, WallClock
from tidings.transports.mpi_in import MpiInLinks
from tidings.transports.mpi_out import MpiOutLink
from tidings.transports.mpi_thread import MpiThread
from tidings.transports.out_link import LinkEnd, OutLink
from tidings.transports.paced import PacedTransport


class MpiTransport(PacedTransport):
    """One node's links. Made, and its methods called, in the node's own loop.

    Node i is rank ``first_rank + i``: where the coordinator is a rank too, it comes first.
    """

    def __init__(
        self,
        identity: Identity,
        links: Mapping[int, LinkShape],
        nic: NicShape,
        sources: frozenset[int],
        seed: int,
        clock: WallClock,
        io: IoThread,
        check_length: Callable[[int], int],
        quantum_bytes: int,
        world: MpiThread,
        first_rank: int = 0,
    ) -> None:
        self._world = world
        self._first_rank = first_rank
        super().__init__(
            identity, links, nic, sources, seed, clock, io, check_length, quantum_bytes
        )

    def _incoming(self, end: NodeEnd) -> InLinks:
        self._mpi_in = MpiInLinks(end, self._world, self._io, self._first_rank)
        return self._mpi_in

    def _outgoing(self, end: LinkEnd) -> OutLink:
        return MpiOutLink(end, self._world, self._io, self._mpi_in)

    def abort(self) -> None:
        """Send nothing more."""
        self._world.mute()
        super().abort()

    async def leave(self) -> None:
        """Leave MPI together with all other ranks."""
        await asyncio.to_thread(self._world.stop)
