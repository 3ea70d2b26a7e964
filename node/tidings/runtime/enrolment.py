"""How a node comes by its certificate: with the run's token, for a key that never leaves it.

The launcher hands every node two environment variables (never arguments, which everybody can
read): TIDINGS_TOKEN, and TIDINGS_CA, the run's authority, as PEM, as the path of a PEM file, or as
one line of base64. Without them the run is in the clear.
"""

from __future__ import annotations

import asyncio
import binascii
import os
import ssl
from collections.abc import MutableMapping
from pathlib import Path

from grpc import StatusCode, aio

from tidings.errors import MissingExtra, UserError
from tidings.runtime.control import OPTIONS, CoordinatorLost
from tidings.transports.credentials import COORDINATOR, Credentials, connect, node_name
from tidings.transports.io_thread import IoThread
from tidings.v1 import control_pb2 as pb

ENROL = "/tidings.v1.Enrolment/Enrol"
TOKEN, CA = "TIDINGS_TOKEN", "TIDINGS_CA"

_PEM = "-----BEGIN CERTIFICATE-----"
_TRANSIENT = (StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED)


def invitation(environment: MutableMapping[str, str]) -> tuple[str, bytes] | None:
    """Token and authority (PEM) from the environment, or None; UserError for one without the other.

    The token is taken out, so that no process that this one starts has it.
    """
    token, authority = environment.pop(TOKEN, ""), environment.get(CA, "")
    if not token and not authority:
        return None
    if not token or not authority:
        raise UserError(f"a node needs both {TOKEN} and {CA}, or none of the two")
    return token, _pem(authority)


def _pem(text: str) -> bytes:
    """The authority's certificate as PEM."""
    if _PEM in text:
        return text.encode()
    try:
        # not Path.is_file(): base64 may be too long for a path, which that raises
        if os.path.isfile(text):
            found = Path(text).read_text(encoding="ascii")
        else:
            found = ssl.DER_cert_to_PEM_cert(binascii.a2b_base64(text, strict_mode=True))
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=found)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{CA} is neither a certificate in PEM, nor the path of one, nor one in base64"
        ) from error
    return found.encode()


async def enrol(
    io: IoThread, node: int, coordinator: str, timeout_s: float
) -> tuple[Credentials | None, str]:
    """A node's credentials and the address of the control plane; from the environment.

    Without an invitation: no credentials, and ``coordinator``. CoordinatorLost where the
    coordinator is not there, is not the run's, or refuses.
    """
    invited = invitation(os.environ)
    if invited is None:
        return None, coordinator
    token, authority = invited
    key, request = make_request(node)
    reply = await io.run(
        _ask(
            coordinator, authority, pb.EnrolRequest(node=node, token=token, csr=request), timeout_s
        )
    )
    address = f"{coordinator.rpartition(':')[0]}:{reply.control_port}"
    return Credentials(authority, reply.certificate, key), address


def preload() -> None:
    """Import what a request needs; MissingExtra where it is not installed."""
    try:
        import cryptography.hazmat.primitives.asymmetric.ec
        import cryptography.hazmat.primitives.serialization
        import cryptography.x509  # noqa: F401
    except ImportError:
        raise MissingExtra("TLS between nodes", "tls") from None


def make_request(node: int) -> tuple[bytes, bytes]:
    """A new private key (PEM), and the request to certify it (PKCS#10, DER)."""
    preload()
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, node_name(node))])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return pem, request.public_bytes(serialization.Encoding.DER)


async def _ask(
    address: str, authority: bytes, request: pb.EnrolRequest, timeout_s: float
) -> pb.EnrolReply:
    async with connect(address, OPTIONS, Credentials(authority), COORDINATOR) as channel:
        method: aio.UnaryUnaryMultiCallable[pb.EnrolRequest, pb.EnrolReply] = channel.unary_unary(
            ENROL, pb.EnrolRequest.SerializeToString, pb.EnrolReply.FromString
        )
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while True:
            try:
                return await method(request, timeout=max(0.1, deadline - loop.time()))
            except aio.AioRpcError as error:
                if error.code() not in _TRANSIENT:
                    raise CoordinatorLost(f"not admitted: {error.details()}") from None
                if loop.time() > deadline:
                    raise CoordinatorLost(
                        f"no coordinator of this run at {address}: {error.details()}"
                    ) from None
            # it may not be up yet, or be busy with others
            await asyncio.sleep(0.2)
