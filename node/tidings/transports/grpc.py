"""Links over gRPC: one client stream per directed link."""

from __future__ import annotations

from tidings.transports.credentials import Credentials
from tidings.transports.endpoint import Endpoint
from tidings.transports.grpc_in import GrpcInLinks
from tidings.transports.grpc_out import GrpcOutLink
from tidings.transports.in_links import InLinks
from tidings.transports.out_link import LinkEnd, OutLink
from tidings.transports.paced import PacedTransport


class GrpcTransport(PacedTransport):
    """One node's links. Made, and its methods called, in the node's own loop."""

    def __init__(self, end: Endpoint, credentials: Credentials | None = None) -> None:
        self._credentials = credentials
        super().__init__(end)

    def _incoming(self) -> InLinks:
        return GrpcInLinks(self._end, self._arrived, self._credentials)

    def _outgoing(self, end: LinkEnd) -> OutLink:
        return GrpcOutLink(end, self._credentials)

    def reset(self, target: int) -> None:
        """As Transport.reset."""
        link = self._out[target]
        assert isinstance(link, GrpcOutLink)
        self._io.post(link.reset)
