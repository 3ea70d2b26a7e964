"""The port at which nodes come by their certificates; the only one that asks for none."""

from __future__ import annotations

from dataclasses import dataclass

import grpc
from grpc import aio

from tidings.transports.credentials import Credentials, Gate, guard
from tidings.v1 import control_pb2 as pb
from tidings_coordinator.control.authority import Authority, BadRequest
from tidings_coordinator.control.refusals import Refusals
from tidings_coordinator.control.server import bind

#: a request is some 500 bytes; anybody can send one
_MAX_REQUEST_BYTES = 16 << 10
#: one call is all that a connection is for, ms
_MAX_AGE_MS, _GRACE_MS = 5_000, 5_000


@dataclass(frozen=True)
class _Admitted:
    """To whom a seat was given."""

    key: bytes
    certificate: bytes


class Enrolment:
    """Gives each seat of the run to the first node that shows the token.

    A node that asks again with the same key gets the same answer, for the first may have been lost
    on the way. Anyone else who asks for a seat that is taken is refused, whatever they know.
    """

    def __init__(self, authority: Authority, nodes: int, refusals: Refusals) -> None:
        self._authority = authority
        self._nodes = nodes
        self._refusals = refusals
        self._seats: dict[int, _Admitted] = {}
        #: nodes that have been killed, or soon will be, and are to come back later
        self._expected: set[int] = set()
        self._control_port = 0
        self._server: aio.Server | None = None
        self.gate = Gate(None)

    def expect(self, node: int) -> None:
        """Somebody else will come for a seat; until it is reopened he is told to come again."""
        self._expected.add(node)

    def reopen(self, node: int) -> None:
        """Let somebody else take a seat: for a node that is started anew, with a new key.

        To be called by whoever knows that the old process is gone.
        """
        self._seats.pop(node, None)
        self._expected.discard(node)

    async def listen(self, host: str, port: int, control_port: int, own: Credentials) -> str:
        """Start; the address. UserError where the port is taken."""
        self._control_port = control_port
        self._server = aio.server(
            options=[
                *guard(self._nodes),
                ("grpc.max_receive_message_length", _MAX_REQUEST_BYTES),
                ("grpc.max_connection_age_ms", _MAX_AGE_MS),
                ("grpc.max_connection_age_grace_ms", _GRACE_MS),
            ]
        )
        handler = grpc.unary_unary_rpc_method_handler(
            self._enrol, pb.EnrolRequest.FromString, pb.EnrolReply.SerializeToString
        )
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("tidings.v1.Enrolment", {"Enrol": handler}),)
        )
        self.gate = Gate(own, ask=False)
        bound = bind(self.gate, self._server, host, port)
        await self._server.start()
        return f"{host}:{bound}"

    async def close(self) -> None:
        """Nobody comes in any more."""
        if self._server is not None:
            await self._server.stop(grace=0.0)

    async def _enrol(
        self,
        request: pb.EnrolRequest,
        context: aio.ServicerContext[pb.EnrolRequest, pb.EnrolReply],
    ) -> pb.EnrolReply:
        self.gate.let_in(context)
        refusal = self._admit(request)
        if refusal is not None:
            reason, detail = refusal
            if reason == "seat_taken" and request.node in self._expected:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "it is not time yet")
            self._refusals.add(reason, context.peer(), detail)
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, detail)
        return pb.EnrolReply(
            certificate=self._seats[request.node].certificate, control_port=self._control_port
        )

    def _admit(self, request: pb.EnrolRequest) -> tuple[str, str] | None:
        """Give the seat away; else the reason why not, in a word and in a sentence."""
        if not self._authority.knows(request.token):
            return "wrong_token", "that is not the token of this run"
        if request.node >= self._nodes:
            return "no_such_seat", f"the run has no node {request.node}"
        try:
            certificate, key = self._authority.certify(request.node, request.csr)
        except BadRequest as error:
            return "bad_request", str(error)
        taken = self._seats.setdefault(request.node, _Admitted(key, certificate))
        if taken.key != key:
            return "seat_taken", f"node {request.node} has been admitted already"
        return None
