"""The coordinator's end of the control plane: one stream per node."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, field

import grpc
from grpc import aio

from tidings.errors import RunError, UserError
from tidings.transports.credentials import Credentials, Gate, guard, node_name
from tidings.v1 import control_pb2 as pb
from tidings.v1 import records_pb2 as records
from tidings_coordinator.control.refusals import Refusals

#: what a node may say in one message; a closing record takes some 100 bytes a neighbour
_MAX_MESSAGE_BYTES = 4 << 20
#: how long a call may take to say which node it is
_HELLO_S = 10.0
#: messages that say which node they are about
_SIGNED = ("activity", "evaluation", "event", "fault", "final", "hello")

#: what a node does not say again to a coordinator that it finds again
_PASSING = ("heartbeat", "hello")
#: how long the last messages may take to leave when it hangs up
_HANG_UP_S = 2.0


@dataclass
class Session:
    """What the coordinator knows of one node."""

    node: int
    #: None: hang up
    outbox: asyncio.Queue[pb.CoordinatorMessage | None] = field(default_factory=asyncio.Queue)
    hello: pb.Hello | None = None
    listening: pb.Listening | None = None
    ready: pb.Ready | None = None
    probed: pb.ProbeResults | None = None
    heartbeat: pb.Heartbeat | None = None
    done: pb.Done | None = None
    ended: pb.Ended | None = None
    #: what has left it for each node
    sent: pb.Sent | None = None
    final: records.Final | None = None
    failure: pb.Failure | None = None
    #: whether it is the seat of a process that was started again
    renewed: bool = False
    #: everything that it has measured
    results: list[pb.ProbeResult] = field(default_factory=list)
    #: what it has said but for hello and heartbeats: so many messages
    taken: int = 0
    #: whether its stream is open
    here: bool = False
    #: the node's stream has ended, and not because the coordinator hung up
    gone: bool = False

    def send(self, message: pb.CoordinatorMessage) -> None:
        """Queue a command for the node."""
        self.outbox.put_nowait(message)


class ControlServer:
    """Accepts the nodes of one run; ``changed`` is set whenever any of them says something."""

    def __init__(
        self, run: str, nodes: int, anonymous: bool = False, refusals: Refusals | None = None
    ) -> None:
        self._run = run
        self._refusals = refusals or Refusals()
        self.gate = Gate(None)
        #: whether nodes that name no run are let in
        self._anonymous = anonymous
        #: whether it takes over nodes that run already, or lets in new ones
        self.adopting = False
        self.sessions = {node: Session(node) for node in range(nodes)}
        self.changed = asyncio.Event()
        self.rows: asyncio.Queue[records.Evaluation] = asyncio.Queue()
        self.events: asyncio.Queue[records.Event] = asyncio.Queue()
        self.activities: asyncio.Queue[records.Activity] = asyncio.Queue()
        self.faults: asyncio.Queue[records.FaultChange] = asyncio.Queue()
        #: which node has come where something is to hit it
        self.arrivals: asyncio.Queue[tuple[int, pb.Arrived]] = asyncio.Queue()
        #: nodes that will come back, with the moment at which their seats are free again
        self._expected: dict[int, asyncio.Event] = {}
        #: bytes of control messages, both ways
        self.size_bytes = 0
        self._server: aio.Server | None = None
        #: where it listens, and as whom
        self._place: tuple[str, int, Credentials | None] = ("", 0, None)
        #: since when it is out of reach, in bytes of control messages
        self._silent_since: int | None = None
        self._kept: socket.socket | None = None

    async def listen(self, host: str, port: int, credentials: Credentials | None = None) -> str:
        """Start; the address. UserError where the port is taken."""
        self._server = aio.server(
            options=[
                *guard(len(self.sessions)),
                ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
                # plans of large graphs
                ("grpc.max_send_message_length", -1),
            ]
        )
        self.gate = Gate(credentials)
        handler = grpc.stream_stream_rpc_method_handler(
            self._attach, pb.NodeMessage.FromString, pb.CoordinatorMessage.SerializeToString
        )
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("tidings.v1.Coordinator", {"Attach": handler}),)
        )
        bound = bind(self.gate, self._server, host, port)
        await self._server.start()
        self._place = host, bound, credentials
        return f"{host}:{bound}"

    async def hang_up(self) -> int:
        """Be out of reach: what was sent arrives, then all lines break and the port is shut.

        Returns how many nodes were cut off. They are not ``gone``.
        """
        assert self._server is not None
        self._silent_since = self.size_bytes
        cut_off = [session for session in self.sessions.values() if session.here]
        for session in cut_off:
            session.outbox.put_nowait(None)
        await self._server.stop(grace=_HANG_UP_S)
        self._silent_since = self.size_bytes
        host, port, _ = self._place
        self._kept = _held(host, port)
        return len(cut_off)

    async def listen_again(self) -> int:
        """Be in reach again, at the same address; how many bytes were heard or said meanwhile."""
        assert self._silent_since is not None
        passed_bytes = self.size_bytes - self._silent_since
        gate = self.gate
        await self.listen(*self._place)
        self.gate.follow(gate)
        if self._kept is not None:
            self._kept.close()
        self._kept = self._silent_since = None
        return passed_bytes

    async def until_back(self, within_s: float, without: Collection[int]) -> None:
        """Until all nodes that were cut off are here but for some. Who is not by then is gone."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + within_s
        while away := [
            session
            for session in self.sessions.values()
            if not (session.here or session.gone or session.node in without)
        ]:
            if loop.time() > until_s:
                for session in away:
                    session.gone = True
            self.changed.clear()
            await self.wait(0.25)
        self.changed.set()

    def expect(self, node: int) -> None:
        """A new process of a node will come; until there is a seat for it, it has to wait."""
        self._expected.setdefault(node, asyncio.Event())

    def renew(self, node: int) -> Session:
        """A seat for a new process of a node; RunError while the old one is here."""
        if not self.sessions[node].gone:
            raise RunError(f"node {node} is alive and cannot be started again")
        self.sessions[node] = Session(node, renewed=True)
        if (free := self._expected.pop(node, None)) is not None:
            free.set()
        return self.sessions[node]

    async def wait(self, timeout_s: float) -> None:
        """Until any node says something, but not for longer than that."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.changed.wait(), timeout_s)

    async def close(self) -> None:
        """Hang up on everyone."""
        if self._server is not None:
            await self._server.stop(grace=0.5)

    async def _attach(
        self,
        messages: AsyncIterator[pb.NodeMessage],
        context: aio.ServicerContext[pb.NodeMessage, pb.CoordinatorMessage],
    ) -> None:
        session = await self._admit(messages, context)
        session.here = True
        self.changed.set()
        hung_up = asyncio.Event()
        tasks = [
            asyncio.create_task(self._read(session, messages)),
            asyncio.create_task(hung_up.wait()),
        ]
        writer = asyncio.create_task(self._write(session, context, hung_up))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            session.here = False
            session.gone = self._silent_since is None
            self.changed.set()
            for task in (*tasks, writer):
                task.cancel()

    async def _read(self, session: Session, messages: AsyncIterator[pb.NodeMessage]) -> None:
        # who comes back says all again
        known = session.taken
        async for message in messages:
            if known and message.WhichOneof("kind") not in _PASSING:
                known -= 1
                self.size_bytes += message.ByteSize()
            else:
                self._take(session, message)

    async def _admit(
        self,
        messages: AsyncIterator[pb.NodeMessage],
        context: aio.ServicerContext[pb.NodeMessage, pb.CoordinatorMessage],
    ) -> Session:
        self.gate.let_in(context)
        try:
            first = await asyncio.wait_for(anext(aiter(messages), None), _HELLO_S)
        except TimeoutError:
            first = None
        if first is None or first.WhichOneof("kind") != "hello":
            self._refusals.add("no_hello", context.peer())
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "say hello first")
        assert first is not None
        if (free := self._expected.get(first.hello.node)) is not None:
            await free.wait()
        session = self.sessions.get(first.hello.node)
        if not self.gate.proves(context, node_name(first.hello.node)):
            refusal = f"the certificate is not node {first.hello.node}'s"
            self._refusals.add("wrong_certificate", context.peer(), refusal)
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, refusal)
        invited = first.hello.run == self._run or (self._anonymous and not first.hello.run)
        if session is not None and session.hello is not None:
            # it was cut off
            back = first.hello.running and not (session.here or session.gone)
        else:
            expected = self.adopting and session is not None and not session.renewed
            back = first.hello.running == expected
        if not invited or session is None or not back:
            refusal = (
                f"run {self._run} has no place for node {first.hello.node} of {first.hello.run}"
            )
            self._refusals.add("not_admitted", context.peer(), refusal)
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, refusal)
        assert session is not None
        if session.hello is None:
            self._take(session, first)
        return session

    def _take(self, session: Session, message: pb.NodeMessage) -> None:
        """File a message where whoever waits for it will look."""
        self.size_bytes += message.ByteSize()
        kind = message.WhichOneof("kind")
        session.taken += kind not in _PASSING
        if kind in _SIGNED and getattr(message, kind).node != session.node:
            # a node speaks for itself only
            self._refusals.add("not_its_own", f"node {session.node}", kind)
            return
        if kind == "evaluation":
            self.rows.put_nowait(message.evaluation)
        elif kind == "event":
            self.events.put_nowait(message.event)
        elif kind == "activity":
            self.activities.put_nowait(message.activity)
        elif kind == "fault":
            self.faults.put_nowait(message.fault)
        elif kind == "arrived":
            self.arrivals.put_nowait((session.node, message.arrived))
        elif kind is not None:
            if kind == "probed":
                session.results += message.probed.results
            setattr(session, kind, getattr(message, kind))
        self.changed.set()

    async def _write(
        self,
        session: Session,
        context: aio.ServicerContext[pb.NodeMessage, pb.CoordinatorMessage],
        hung_up: asyncio.Event,
    ) -> None:
        while (message := await session.outbox.get()) is not None:
            self.size_bytes += message.ByteSize()
            await context.write(message)
        hung_up.set()


def _held(host: str, port: int) -> socket.socket | None:
    """The port of a server that has stopped, for nobody else to take; who dials it is refused."""
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    held = socket.socket(family, socket.SOCK_STREAM)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        held.bind(address)
    except OSError:
        # the server has not let go of it yet; it will be bound again all the same
        held.close()
        return None
    return held


def bind(gate: Gate, server: aio.Server, host: str, port: int) -> int:
    """Open a port for nodes; its number. UserError where that cannot be."""
    try:
        return gate.bind(server, f"{host}:{port}")
    except OSError:
        raise UserError(
            f"cannot listen on {host}:{port}: the port is taken or the address is not ours; "
            "choose another with launcher.port, or 0 for any free one"
        ) from None
