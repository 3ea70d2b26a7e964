"""Links over gRPC: one client stream per directed link."""

from __future__ import annotations

from tidings.transports.grpc_in import GrpcInLinks
from tidings.transports.grpc_out import GrpcOutLink
from tidings.transports.in_links import InLinks, NodeEnd
from tidings.transports.out_link import LinkEnd, OutLink
from tidings.transports.paced import PacedTransport


class GrpcTransport(PacedTransport):
    """One node's links. Made, and its methods called, in the node's own loop."""

    def _incoming(self, end: NodeEnd) -> InLinks:
        return GrpcInLinks(end)

    def _outgoing(self, end: LinkEnd) -> OutLink:
        return GrpcOutLink(end)
