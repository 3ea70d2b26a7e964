"""A run's own certificate authority.

Its key exists in the coordinator's process only, and as long as it; unless nodes must be started
before or beside the coordinator. Then whoever starts them all makes the authority, and gives its
key to the coordinator in TIDINGS_CA_KEY. Where nodes outlive their coordinator (``grace``)
the key is also in the run directory, for this user only and as long as the run.
"""

from __future__ import annotations

import base64
import datetime
import hmac
import secrets
from collections.abc import MutableMapping
from typing import TYPE_CHECKING

from tidings.errors import MissingExtra, UserError
from tidings.runtime.enrolment import CA, TOKEN, invitation, preload
from tidings.transports.credentials import COORDINATOR, Credentials, node_name

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

#: certificates end with the run, and at the latest after that
_VALID = datetime.timedelta(days=30)
#: clocks of other machines may be that much behind
_SKEW = datetime.timedelta(hours=1)

#: environment variable with the authority's key: PKCS#8, DER, in base64
CA_KEY = "TIDINGS_CA_KEY"


class BadRequest(ValueError):
    """A request to certify a key that is none."""


class Authority:
    """Signs certificates for the coordinator and the nodes of one run: ECDSA on P-256.

    The authority stands for the run, so names need not mention it: whoever trusts this authority
    trusts nobody of another run. Raises MissingExtra.
    """

    def __init__(self) -> None:
        try:
            preload()
        except MissingExtra:
            raise MissingExtra("TLS (security.tls)", "tls") from None
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import ec

        self.token = secrets.token_urlsafe(32)
        self._key = ec.generate_private_key(ec.SECP256R1())
        label = f"tidings {secrets.token_hex(8)}"
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, label)])
        self._certificate = self._sign(self._name, self._key.public_key(), authority=True)

    @classmethod
    def given(cls, environment: MutableMapping[str, str]) -> Authority | None:
        """The one whose key, certificate and token are in the environment; None without a key.

        Key and token are taken out. Raises UserError where they are no authority.
        """
        key, token = environment.pop(CA_KEY, ""), ""
        if not key:
            return None
        from cryptography import x509
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        found = cls()
        if (invited := invitation(environment)) is not None:
            token, pem = invited
            found._certificate = x509.load_pem_x509_certificate(pem)
            found._name = found._certificate.subject
        try:
            loaded = serialization.load_der_private_key(base64.b64decode(key), password=None)
        except (ValueError, TypeError) as error:
            raise UserError(f"{CA_KEY} is no key: PKCS#8, DER, in base64") from error
        public = found._certificate.public_key()
        if not isinstance(loaded, ec.EllipticCurvePrivateKey) or loaded.public_key() != public:
            raise UserError(f"{CA_KEY} is not the key of the certificate in {CA}")
        found._key, found.token = loaded, token
        return found

    @property
    def for_nodes(self) -> dict[str, str]:
        """Environment of the run's nodes."""
        return {TOKEN: self.token, CA: self.line}

    @property
    def for_coordinator(self) -> dict[str, str]:
        """What the coordinator needs besides, where the authority is made by somebody else."""
        from cryptography.hazmat.primitives import serialization

        der = self._key.private_bytes(
            serialization.Encoding.DER,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return {CA_KEY: base64.b64encode(der).decode()}

    @property
    def certificate(self) -> bytes:
        """What others check certificates against, PEM."""
        return _pem(self._certificate)

    @property
    def line(self) -> str:
        """The same on one line, in base64, as it fits into any file of variables."""
        from cryptography.hazmat.primitives import serialization

        der = self._certificate.public_bytes(serialization.Encoding.DER)
        return base64.b64encode(der).decode()

    def knows(self, token: str) -> bool:
        """Whether it is the run's token; takes as long for a nearly right one as for any."""
        return hmac.compare_digest(token.encode(), self.token.encode())

    def own(self) -> Credentials:
        """The coordinator's credentials, for a new key."""
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return Credentials(self.certificate, self._issue(COORDINATOR, key.public_key()), pem)

    def certify(self, node: int, request: bytes) -> tuple[bytes, bytes]:
        """A node's certificate (PEM) for the key of a request (PKCS#10, DER), and that key (DER).

        What else the request asks for is ignored. Raises BadRequest for one that does not parse,
        is not signed with its own key, or whose key is of another kind.
        """
        from cryptography import x509
        from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        try:
            found = x509.load_der_x509_csr(request)
            key = found.public_key()
            if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
                raise BadRequest("the key is not one on P-256")
            if not found.is_signature_valid:
                raise BadRequest("the request is not signed with its own key")
        except BadRequest:
            raise
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
            raise BadRequest("the request cannot be read") from error
        der = key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return self._issue(node_name(node), key), der

    def _issue(self, name: str, key: ec.EllipticCurvePublicKey) -> bytes:
        from cryptography import x509

        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        return _pem(self._sign(subject, key, authority=False, host=name))

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePublicKey,
        authority: bool,
        host: str | None = None,
    ) -> x509.Certificate:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        from cryptography.x509.oid import ExtendedKeyUsageOID

        now = datetime.datetime.now(datetime.UTC)
        usage = x509.KeyUsage(
            digital_signature=not authority,
            key_cert_sign=authority,
            crl_sign=authority,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        constraints = x509.BasicConstraints(ca=authority, path_length=0 if authority else None)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _SKEW)
            .not_valid_after(now + _VALID)
            .add_extension(constraints, critical=True)
            .add_extension(usage, critical=True)
        )
        if host is not None:
            both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            names = x509.SubjectAlternativeName([x509.DNSName(host)])
            builder = builder.add_extension(x509.ExtendedKeyUsage(both), critical=False)
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self._key, hashes.SHA256())


def _pem(certificate: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return certificate.public_bytes(serialization.Encoding.PEM)
