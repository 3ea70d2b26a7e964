"""Certificates, invitations and the switch for TLS: what needs no network."""

from __future__ import annotations

import base64
import os
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tidings.errors import UserError
from tidings.runtime.enrolment import CA, invitation, make_request
from tidings_coordinator.control.authority import CA_KEY, Authority, BadRequest
from tidings_coordinator.control.enrolment import Enrolment
from tidings_coordinator.control.refusals import Refusals
from tidings_coordinator.experiment.security import Security, on_loopback

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("[::1]", True),
        ("localhost", True), ("0.0.0.0", False), ("::", False), ("10.0.0.1", False),
        ("192.168.1.7", False), ("example.org", False), ("127.0.0.1.example.org", False),
        ("", False),
    ],
)  # fmt: skip
def test_what_counts_as_loopback(host: str, expected: bool) -> None:
    assert on_loopback(host) is expected
    assert Security(tls="auto").on(host) is not expected
    assert Security(tls="always").on(host)
    assert not Security(tls="never").on(host)


def test_a_certificate_says_who_and_no_more(authority: Authority) -> None:
    key, request = make_request(3)
    pem, _ = authority.certify(3, request)
    found = x509.load_pem_x509_certificate(pem)
    assert found.subject.rfc4514_string() == "CN=node-3"
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["node-3"]
    assert not found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    # signed by the authority, and for the key of the request
    found.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.certificate))
    own = serialization.load_pem_private_key(key, None).public_key()
    assert found.public_key() == own
    assert (found.not_valid_after_utc - found.not_valid_before_utc).days == 30
    other = x509.load_pem_x509_certificate(Authority().certificate)
    with pytest.raises(ValueError):
        found.verify_directly_issued_by(other)


def test_the_name_is_the_seats_whatever_the_request_says(authority: Authority) -> None:
    _, request = make_request(0)
    pem, _ = authority.certify(5, request)
    assert x509.load_pem_x509_certificate(pem).subject.rfc4514_string() == "CN=node-5"


def _request(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "node-0")])
    made = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.DER)


def test_bad_requests_are_refused(authority: Authority) -> None:
    forged = bytearray(make_request(0)[1])
    forged[-1] ^= 1
    weak = rsa.generate_private_key(65537, 2048)
    for request in (
        b"", b"x" * 500, os.urandom(500), bytes(forged), _request(weak),
        _request(ec.generate_private_key(ec.SECP384R1())),
    ):  # fmt: skip
        with pytest.raises(BadRequest):
            authority.certify(0, request)


def test_a_seat_is_given_once_and_again_only_to_its_holder(authority: Authority) -> None:
    from tidings.v1 import control_pb2 as pb

    enrolment = Enrolment(authority, 4, Refusals())

    def ask(node: int, token: str, csr: bytes) -> str | None:
        refused = enrolment._admit(pb.EnrolRequest(node=node, token=token, csr=csr))
        return None if refused is None else refused[0]

    first, second = make_request(1)[1], make_request(1)[1]
    assert ask(1, "guess", first) == "wrong_token"
    assert ask(1, "", first) == "wrong_token"
    assert ask(1, "tökén", first) == "wrong_token"
    assert ask(4, authority.token, first) == "no_such_seat"
    assert ask(1, authority.token, b"garbage") == "bad_request"
    # nothing of that has taken the seat
    assert ask(1, authority.token, first) is None
    assert ask(1, authority.token, first) is None
    assert ask(1, authority.token, second) == "seat_taken"
    # the node was started anew: its old key is worth nothing any more
    enrolment.reopen(1)
    assert ask(1, authority.token, second) is None
    assert ask(1, authority.token, first) == "seat_taken"


def test_an_invitation_in_each_of_its_forms(authority: Authority, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_bytes(authority.certificate)
    der = ssl.PEM_cert_to_DER_cert(authority.certificate.decode())
    for form in (authority.certificate.decode(), str(file), authority.line):
        environment = {"TIDINGS_TOKEN": "t", "TIDINGS_CA": form}
        found = invitation(environment)
        assert found is not None
        assert (found[0], ssl.PEM_cert_to_DER_cert(found[1].decode())) == ("t", der)
        # not for the processes that the node may start
        assert "TIDINGS_TOKEN" not in environment
    assert invitation({}) is None


@pytest.mark.parametrize(
    ("environment", "text"),
    [
        ({"TIDINGS_TOKEN": "t"}, "needs both"),
        ({"TIDINGS_CA": "x"}, "needs both"),
        ({"TIDINGS_TOKEN": "t", "TIDINGS_CA": "/nowhere/ca.pem"}, "neither"),
        ({"TIDINGS_TOKEN": "t", "TIDINGS_CA": "a" * 5000}, "neither"),
    ],
)
def test_half_an_invitation_is_an_error(environment: dict[str, str], text: str) -> None:
    with pytest.raises(UserError, match=text):
        invitation(environment)


def test_an_authority_that_somebody_else_has_made(authority: Authority) -> None:
    environment = authority.for_nodes | authority.for_coordinator
    given = Authority.given(environment)
    assert given is not None
    assert (given.token, given.certificate) == (authority.token, authority.certificate)
    # what is secret is gone from the environment
    assert environment.keys() == {CA}
    certificate, _ = given.certify(3, make_request(3)[1])
    x509.load_pem_x509_certificate(certificate).verify_directly_issued_by(
        x509.load_pem_x509_certificate(authority.certificate)
    )
    assert Authority.given(dict(authority.for_nodes)) is None


def test_an_authority_that_is_none(authority: Authority) -> None:
    for wrong, text in (
        ({CA_KEY: "bm9uZQ=="}, "is no key"),
        (Authority().for_coordinator, "is not the key of the certificate"),
    ):
        with pytest.raises(UserError, match=text):
            Authority.given(authority.for_nodes | wrong)
    with pytest.raises(UserError, match="is not the key of the certificate"):
        Authority.given(dict(authority.for_coordinator))


def test_secrets_do_not_show(authority: Authority) -> None:
    from tidings_coordinator.launchers.base import Order

    own = authority.own()
    assert own.key is not None
    order = Order("run", 2, "a:1", Path("logs"), {}, {}, join={"TIDINGS_TOKEN": authority.token})
    assert "PRIVATE" not in repr(own)
    assert authority.token not in repr(order)
    assert len(base64.urlsafe_b64decode(authority.token + "=")) == 32


def test_all_refusals_count_and_few_are_logged() -> None:
    logged: list[object] = []
    refusals = Refusals(lambda name, **fields: logged.append(fields["reason"]))
    for _ in range(1000):
        refusals.add("wrong_token", "ipv4:192.0.2.1:7")
    refusals.add("seat_taken", "ipv4:192.0.2.1:7")
    assert refusals.counts == {"wrong_token": 1000, "seat_taken": 1}
    assert logged == ["wrong_token"] * 20 + ["seat_taken"]
