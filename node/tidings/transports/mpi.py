"""Links over MPI: one message a frame where that is possible, all calls from one thread."""

from __future__ import annotations

import asyncio

from tidings.transports.endpoint import Endpoint
from tidings.transports.in_links import InLinks
from tidings.transports.mpi_in import MpiInLinks
from tidings.transports.mpi_out import MpiOutLink
from tidings.transports.mpi_thread import MpiThread
from tidings.transports.out_link import LinkEnd, OutLink
from tidings.transports.paced import PacedTransport


class MpiTransport(PacedTransport):
    """One node's links. Made, and its methods called, in the node's own loop.

    Node i is rank ``first_rank + i``: where the coordinator is a rank too, it comes first.
    """

    def __init__(self, end: Endpoint, world: MpiThread, first_rank: int = 0) -> None:
        self._world = world
        self._first_rank = first_rank
        super().__init__(end)

    def _incoming(self) -> InLinks:
        self._mpi_in = MpiInLinks(self._end, self._arrived, self._world, self._first_rank)
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
