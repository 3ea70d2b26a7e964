"""Links over gRPC: one client stream per directed link."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tidings.links.shape import LinkShape, NicShape
from tidings.transports.credentials import Credentials
from tidings.transports.grpc_in import GrpcInLinks
from tidings.transports.grpc_out import GrpcOutLink
from tidings.transports.identity import Identity
from tidings.transports.in_links import InLinks, NodeEnd
from tidings.transports.io_thread import IoThread, WallClock
from tidings.transports.out_link import LinkEnd, OutLink
from tidings.transports.paced import PacedTransport


class GrpcTransport(PacedTransport):
    """One node's links. Made, and its methods called, in the node's own loop."""

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
        credentials: Credentials | None = None,
    ) -> None:
        self._credentials = credentials
        super().__init__(
            identity, links, nic, sources, seed, clock, io, check_length, quantum_bytes
        )

    def _incoming(self, end: NodeEnd) -> InLinks:
        return GrpcInLinks(end, self._credentials)

    def _outgoing(self, end: LinkEnd) -> OutLink:
        return GrpcOutLink(end, self._credentials)
