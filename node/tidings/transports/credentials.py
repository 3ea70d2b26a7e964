"""Who may connect to whom: mutual TLS under a run's own authority, and what strangers may use up.

Certificates carry one name, ``node-3`` or ``coordinator``; the authority that signed them stands
for the run. Whoever connects checks the name of whom it finds, whoever is connected to checks the
name against the number that is claimed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from grpc import aio

#: the name in the coordinator's certificate
COORDINATOR = "coordinator"

#: a connection that has not said who it is by then is dropped, real time
HANDSHAKE_S = 20.0
#: connections beyond those that a run needs: for reconnecting, and for strangers to hold
_SPARE_CONNECTIONS = 128
_STREAMS_PER_CONNECTION = 8
_MAX_METADATA_BYTES = 8 << 10
#: connections whose having come through is remembered
_REMEMBERED = 4096


def node_name(node: int) -> str:
    """The name in a node's certificate."""
    return f"node-{node}"


def guard(connections: int) -> list[tuple[str, Any]]:
    """Server options that bound what a client can hold; ``connections``: how many are expected."""
    return [
        ("grpc.server_handshake_timeout_ms", round(HANDSHAKE_S * 1000)),
        ("grpc.max_allowed_incoming_connections", connections + _SPARE_CONNECTIONS),
        ("grpc.max_concurrent_streams", _STREAMS_PER_CONNECTION),
        ("grpc.max_metadata_size", _MAX_METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", 2 * _MAX_METADATA_BYTES),
        # two servers on one port would each get some of the other's clients
        ("grpc.so_reuseport", 0),
    ]


@dataclass(frozen=True)
class Credentials:
    """What a process of a run shows others, and what it holds them against; all PEM.

    Without certificate and key it can check others and not be checked itself.
    """

    authority: bytes
    certificate: bytes | None = None
    key: bytes | None = None

    def __repr__(self) -> str:
        # keys do not belong into logs
        return "Credentials(...)"


def connect(
    address: str, options: Sequence[tuple[str, Any]], credentials: Credentials | None, name: str
) -> aio.Channel:
    """A channel to whoever proves to be ``name``; in the clear without credentials."""
    if credentials is None:
        return aio.insecure_channel(address, options=options)
    mine = grpc.ssl_channel_credentials(
        credentials.authority, credentials.key, credentials.certificate
    )
    return aio.secure_channel(
        address, mine, options=[*options, ("grpc.ssl_target_name_override", name)]
    )


class Gate:
    """A server's port: in the clear, or TLS that counts the connections that remained strangers."""

    def __init__(self, credentials: Credentials | None, ask: bool = True) -> None:
        self._credentials = credentials
        #: whether clients must have a certificate
        self._ask = ask
        self._opened = 0
        self._came_through = 0
        #: a connection makes several calls
        self._recent: OrderedDict[str, None] = OrderedDict()

    def bind(self, server: aio.Server, address: str) -> int:
        """Open the port of ``address``, before the server is started; OSError where it is taken."""
        try:
            if self._credentials is None:
                port = server.add_insecure_port(address)
            else:
                port = server.add_secure_port(address, self._server_credentials(self._credentials))
        except RuntimeError:
            port = 0
        if port == 0:
            raise OSError(f"cannot listen on {address}")
        return port

    def _server_credentials(self, credentials: Credentials) -> grpc.ServerCredentials:
        if credentials.key is None or credentials.certificate is None:
            raise ValueError("a server needs a certificate and its key")
        setting = grpc.ssl_server_certificate_configuration(
            [(credentials.key, credentials.certificate)],
            credentials.authority if self._ask else None,
        )

        def opening() -> grpc.ServerCertificateConfiguration:
            # gRPC asks for news of the certificate before each handshake, in a thread of its own,
            # and tells nothing else about handshakes
            self._opened += 1
            return None  # type: ignore[return-value] # no news

        return grpc.dynamic_ssl_server_credentials(
            setting, opening, require_client_authentication=self._ask
        )

    def proves(self, context: aio.ServicerContext[Any, Any], name: str) -> bool:
        """Whether the peer of a call is ``name``; in the clear it is believed."""
        self.let_in(context)
        if self._credentials is None:
            return True
        names = context.auth_context().get("x509_common_name", ())
        return [bytes(each) for each in names] == [name.encode()]

    def let_in(self, context: aio.ServicerContext[Any, Any]) -> None:
        """Note that a call's connection has come through the handshake."""
        peer = context.peer()
        if self._credentials is None or peer in self._recent:
            return
        self._came_through += 1
        self._recent[peer] = None
        if len(self._recent) > _REMEMBERED:
            self._recent.popitem(last=False)

    def follow(self, before: Gate) -> None:
        """Go on counting where another one stopped."""
        self._opened += before._opened
        self._came_through += before._came_through

    @property
    def strangers(self) -> int:
        """Connections that never came to a call: no certificate, another run's, garbage, silence.

        Includes those whose handshake is still under way. Always 0 in the clear.
        """
        return max(0, self._opened - self._came_through)
