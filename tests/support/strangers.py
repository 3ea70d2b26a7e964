"""Clients that have no business here: each knocks at a TLS port in its own bad way.

``knock(address)`` opens one connection, does its worst, and waits to be hung up on.
"""

from __future__ import annotations

import os
import socket
import ssl
import tempfile
from collections.abc import Callable
from pathlib import Path

from tidings.runtime.enrolment import make_request
from tidings.transports.credentials import Credentials
from tidings_coordinator.control.authority import Authority

_WAIT_S = 60.0
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0"

Knock = Callable[[str], None]


def credentials_of(authority: Authority, node: int) -> Credentials:
    """What a node of the authority's run holds."""
    key, request = make_request(node)
    return Credentials(authority.certificate, authority.certify(node, request)[0], key)


def without_certificate(address: str) -> None:
    """TLS, and no certificate."""
    _tls(address, None)


def of_another_run(address: str) -> None:
    """TLS, and a certificate for node 1 from another run's authority."""
    _tls(address, credentials_of(Authority(), 1))


def in_the_clear(address: str) -> None:
    """HTTP/2 as gRPC speaks it without TLS."""
    _raw(address, _PREFACE)


def garbage(address: str) -> None:
    """A TLS record without meaning."""
    _raw(address, b"\x16\x03\x01\x10\x00" + os.urandom(4096))


EVERYBODY: tuple[Knock, ...] = (without_certificate, of_another_run, in_the_clear, garbage)


class SlowLoris:
    """Opens many connections and sends next to nothing on them; use as ``with``."""

    def __init__(self, address: str, count: int) -> None:
        self._sockets = [_connect(address) for _ in range(count)]
        for each in self._sockets:
            # the beginning of a TLS record
            each.sendall(b"\x16")

    def __enter__(self) -> SlowLoris:
        return self

    def __exit__(self, *error: object) -> None:
        for each in self._sockets:
            each.close()

    def dribble(self) -> int:
        """One more byte on each; how many are still connected."""
        alive = []
        for each in self._sockets:
            try:
                each.sendall(b"\x03")
                each.setblocking(False)
                if each.recv(1) == b"":
                    continue
            except BlockingIOError:
                alive.append(each)
            except OSError:
                continue
        for each in alive:
            each.setblocking(True)
        return len(alive)


def _connect(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=_WAIT_S)


def _raw(address: str, data: bytes) -> None:
    with _connect(address) as connection:
        try:
            connection.sendall(data)
            while connection.recv(1 << 16):
                pass
        except ConnectionError:
            pass


def _tls(address: str, credentials: Credentials | None) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    if credentials is not None:
        assert credentials.certificate is not None
        assert credentials.key is not None
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "own.pem"
            file.write_bytes(credentials.certificate + credentials.key)
            context.load_cert_chain(file)
    with _connect(address) as plain:
        try:
            with context.wrap_socket(plain) as connection:
                connection.sendall(_PREFACE)
                while connection.recv(1 << 16):
                    pass
        except (ssl.SSLError, ConnectionError):
            pass
