"""Which transport carries a node's messages, by its plan."""

from __future__ import annotations

from tidings.runtime.parts import Parts
from tidings.runtime.plan import NodePlan
from tidings.transports.base import NetworkTransport
from tidings.transports.credentials import Credentials
from tidings.transports.endpoint import Endpoint
from tidings.transports.identity import Identity
from tidings.transports.io_thread import IoThread, WallClock


def endpoint_of(plan: NodePlan, parts: Parts, clock: WallClock, io: IoThread) -> Endpoint:
    """The node on the data plane."""
    return Endpoint(
        Identity(plan.run, plan.node, parts.codec.digest),
        plan.paced_links,
        plan.paced_nic,
        frozenset(plan.in_neighbors),
        plan.link_seed,
        clock,
        io,
        parts.codec.check_length,
        plan.chunk_bytes,
    )


def make_transport(
    plan: NodePlan,
    parts: Parts,
    clock: WallClock,
    io: IoThread,
    first_rank: int,
    credentials: Credentials | None,
) -> NetworkTransport:
    """The node's links, not connected yet; ``first_rank`` is node 0's, where there are ranks.

    Credentials are for links over gRPC; what protects MPI is up to MPI.
    """
    end = endpoint_of(plan, parts, clock, io)
    if plan.transport == "mpi":
        from tidings.transports.mpi import MpiTransport
        from tidings.transports.mpi_thread import world

        return MpiTransport(end, world(), first_rank)
    from tidings.transports.grpc import GrpcTransport

    return GrpcTransport(end, credentials)
