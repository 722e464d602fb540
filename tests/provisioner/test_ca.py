"""The issuing CA: certificates that OpenSSL's strict mode takes, for names of the record alone, never longer than the CA itself lives."""

from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from runtime.net.tls import TlsError, TlsIdentity, TlsStream, client_context, server_context
from runtime.protocol.errors import Refused
from runtime.provisioner.ca import CertificateAuthority, create_authority, read_request
from tests.provisioner.refusals import refuse_evidence
from tests.provisioner.requests import KEY, OTHER_KEY, alternative_names, dns, named, spki, write
from tests.support import der_writer as der
from tests.support.prov import NAMES, NOW, Bench
from tests.support.sockets import socket_pair

AUTHORITY = create_authority("a test's CA", now=NOW)
DAY = timedelta(days=1)


def signed(request: bytes) -> tuple[tuple[str, ...], x509.Certificate]:
    names, leaf = AUTHORITY.sign_request(request, NAMES, now=NOW, lifetime=30 * DAY)
    return names, x509.load_der_x509_certificate(leaf)


def alternative(certificate: x509.Certificate) -> list[str]:
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return list(extension.value.get_values_for_type(x509.DNSName))


async def handshake(leaf: x509.Certificate, name: str, *, authority: CertificateAuthority = AUTHORITY, now: datetime = NOW) -> str:
    """ "accepted", or the reason for which a client that trusts the CA refuses a server with this leaf."""
    context = client_context([authority.certificate], now=now)
    serving = server_context([TlsIdentity(names=(name,), chain=(leaf,), key=KEY)])
    ends = socket_pair()
    outcome = "accepted"

    async def serve() -> None:
        try:
            async with await TlsStream.accept(ends[0], serving):
                pass
        except TlsError:
            pass

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            try:
                async with await TlsStream.connect(ends[1], context, server_name=name):
                    pass
            except TlsError as error:
                outcome = error.reason
    return outcome


async def test_a_client_that_trusts_the_ca_takes_the_certificate_for_its_names_and_no_other() -> None:
    names, leaf = signed(named(*NAMES))
    assert names == NAMES
    assert [await handshake(leaf, name) for name in NAMES] == ["accepted", "accepted"]
    assert await handshake(leaf, "other.example.com") == "tls_name"


async def test_a_client_that_trusts_another_ca_does_not() -> None:
    _, leaf = signed(named(*NAMES))
    other = create_authority("a test's CA", now=NOW)
    assert await handshake(leaf, NAMES[0], authority=other) == "tls_certificate"


@pytest.mark.parametrize(
    ("at", "outcome"),
    [
        (-timedelta(minutes=5), "accepted"),
        (-timedelta(minutes=6), "tls_certificate"),
        (30 * DAY, "accepted"),
        (30 * DAY + timedelta(seconds=1), "tls_certificate"),
    ],
)
async def test_a_certificate_holds_from_five_minutes_ago_to_its_end(at: timedelta, outcome: str) -> None:
    older = create_authority("an older CA", now=NOW - DAY)
    _, leaf = older.sign_request(named(*NAMES), NAMES, now=NOW, lifetime=30 * DAY)
    assert await handshake(x509.load_der_x509_certificate(leaf), NAMES[0], authority=older, now=NOW + at) == outcome


def test_a_certificate_never_outlives_its_ca() -> None:
    short = create_authority("a short CA", now=NOW, lifetime=10 * DAY)
    _, leaf = short.sign_request(named(*NAMES), NAMES, now=NOW, lifetime=30 * DAY)
    assert x509.load_der_x509_certificate(leaf).not_valid_after_utc == short.certificate.not_valid_after_utc
    _, leaf = short.sign_request(named(*NAMES), NAMES, now=NOW, lifetime=5 * DAY)
    assert x509.load_der_x509_certificate(leaf).not_valid_after_utc == NOW + 5 * DAY


def test_a_leaf_is_for_a_server_and_can_sign_nothing() -> None:
    wishes = (der.basic_constraints(), der.key_usage(der.KEY_CERT_SIGN), der.extension("2.5.29.32", b"\x30\x00"))
    for request in (named(*NAMES), write(alternative_names(*map(dns, NAMES)), *wishes[:2])):
        _, leaf = signed(request)
        extensions = leaf.extensions
        constraints = extensions.get_extension_for_class(x509.BasicConstraints)
        usage = extensions.get_extension_for_class(x509.KeyUsage)
        assert (constraints.value.ca, constraints.critical) == (False, True)
        assert (usage.value.digital_signature, usage.value.key_cert_sign, usage.value.crl_sign) == (True, False, False)
        assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.SERVER_AUTH]
        assert alternative(leaf) == list(NAMES)
        assert leaf.subject.rfc4514_string() == ""
        assert leaf.public_key() == KEY.public_key()


def test_the_ca_may_issue_leaves_alone() -> None:
    constraints = AUTHORITY.certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.value.ca, constraints.value.path_length, constraints.critical) == (True, 0, True)
    usage = AUTHORITY.certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert (usage.key_cert_sign, usage.crl_sign, usage.digital_signature) == (True, True, False)
    assert "PrivateKey" not in repr(AUTHORITY)


def test_no_two_certificates_share_a_serial_number() -> None:
    assert signed(named(*NAMES))[1].serial_number != signed(named(*NAMES))[1].serial_number


# Names


@pytest.mark.parametrize(
    ("asked", "given"),
    [(NAMES, NAMES), (NAMES[:1], NAMES[:1]), (NAMES[::-1], NAMES[::-1]), ((), NAMES)],
    ids=["all", "one of them", "another order", "none: all that the record allows"],
)
def test_the_names_are_those_that_were_asked_for_and_are_allowed(asked: tuple[str, ...], given: tuple[str, ...]) -> None:
    names, leaf = signed(named(*asked) if asked else write())
    assert (names, alternative(leaf)) == (given, list(given))


def refused_request(request: bytes, allowed: tuple[str, ...] = NAMES) -> str:
    with pytest.raises(Refused) as refused:
        AUTHORITY.sign_request(request, allowed, now=NOW, lifetime=DAY)
    assert refused.value.reason == "csr_invalid"
    return refused.value.detail


@pytest.mark.parametrize(
    "names",
    [
        ("other.example.com",),
        ("pay.example.com", "other.example.com"),
        ("*.example.com",),
        ("example.com",),
        ("PAY.example.com",),
        ("pay.example.com.",),
        ("pay.example.com\0.evil.example",),
        ("",),
        (" pay.example.com",),
    ],
    ids=repr,
)
def test_a_name_that_is_not_on_the_record_is_refused_with_all_of_the_request(names: tuple[str, ...]) -> None:
    assert "the record does not allow" in refused_request(named(*names))


def test_a_record_without_names_allows_none() -> None:
    assert "any name" in refused_request(write(), allowed=())
    assert "the record does not allow pay.example.com" in refused_request(named("pay.example.com"), allowed=())


@pytest.mark.parametrize(
    "other",
    [der.tlv(0x87, bytes((192, 0, 2, 1))), der.tlv(0x81, b"a@example.com"), der.tlv(0x86, b"https://pay.example.com")],
    ids=["an address", "a mailbox", "a URI"],
)
def test_a_name_of_another_kind_is_refused_also_beside_an_allowed_one(other: bytes) -> None:
    assert "other than DNS names" in refused_request(write(alternative_names(dns(NAMES[0]), other)))


# Requests


def broken() -> dict[str, bytes]:
    right = named(*NAMES)
    names = alternative_names(*map(dns, NAMES))
    point = spki(KEY)
    request_attribute = der.oid("1.2.840.113549.1.9.14")
    return {
        "nothing": b"",
        "no DER": b"-----BEGIN CERTIFICATE REQUEST-----",
        "cut short": right[:-1],
        "a byte behind": right + b"\0",
        "twice": right * 2,
        "of a later version": write(names, version=1),
        "of a negative version": write(names, version=-1),
        "a name of X.400": write(alternative_names(der.tlv(0xA3, b""))),
        "a name of EDI": write(alternative_names(der.tlv(0xA5, b""))),
        "a name that is no ASCII": write(alternative_names(dns("p\xe4y.example.com"))),
        "an address of three bytes": write(alternative_names(der.tlv(0x87, b"\1\2\3"))),
        "the names twice": write(names, names),
        "names that are no list": write(der.extension("2.5.29.17", b"\xff")),
        "another extension that cannot be read": write(names, der.extension("2.5.29.19", b"\xff")),
        "an attribute without a value": write(attributes=der.sequence(request_attribute, der.tlv(0x31))),
        "an attribute of another kind": write(attributes=der.sequence(request_attribute, der.tlv(0x31, b"\x05\x00"))),
        "a point off the curve": write(names, key=point[:-1] + bytes((point[-1] ^ 1,))),
        "a curve without a name": write(
            names, key=der.sequence(der.sequence(der.oid("1.2.840.10045.2.1"), b"\x30\x00"), der.bits(b"\4" * 65))
        ),
        "a key of an unknown kind": write(names, key=der.sequence(der.sequence(der.oid("1.2.3.4")), der.bits(b"key"))),
    }


BROKEN = broken()


@pytest.mark.parametrize("request_", BROKEN.values(), ids=list(BROKEN))
def test_what_is_no_certificate_request_is_refused(request_: bytes) -> None:
    assert "not a certificate request" in refused_request(request_)


def by_library(key: Any, algorithm: Any) -> bytes:
    subject = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    names = x509.SubjectAlternativeName([x509.DNSName(name) for name in NAMES])
    return subject.add_extension(names, critical=True).sign(key, algorithm).public_bytes(Encoding.DER)


def test_keys_that_are_not_on_p256_or_p384_are_refused() -> None:
    keys: list[tuple[Any, Any]] = [
        (rsa.generate_private_key(65537, 2048), SHA384()),
        (ed25519.Ed25519PrivateKey.generate(), None),
        (ec.generate_private_key(ec.SECP521R1()), SHA384()),
        (ec.generate_private_key(ec.SECP256K1()), SHA384()),
    ]
    for key, algorithm in keys:
        assert "not on P-256 or P-384" in refused_request(by_library(key, algorithm))
    assert signed(by_library(ec.generate_private_key(ec.SECP384R1()), SHA384()))[0] == NAMES


@pytest.mark.parametrize(
    "request_",
    [
        write(alternative_names(*map(dns, NAMES)), key=spki(OTHER_KEY)),
        write(alternative_names(*map(dns, NAMES)), algorithm=der.ECDSA_SHA256),
    ],
    ids=["signed by another key", "by another hash"],
)
def test_a_request_that_does_not_prove_its_key_is_refused(request_: bytes) -> None:
    assert "not signed by its own key" in refused_request(request_)


@given(st.integers(0, len(named(*NAMES)) - 80), st.integers(1, 255))
def test_a_request_with_any_byte_changed_is_refused(position: int, change: int) -> None:
    """All but the last bytes: a signature's own encoding can be changed into another one of the same."""
    altered = bytearray(named(*NAMES))
    altered[position] ^= change
    with pytest.raises(Refused) as refused:
        read_request(bytes(altered))
    assert refused.value.reason == "csr_invalid"


@given(st.binary(max_size=300))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(Refused):
        read_request(data)


# At the provisioner: the evidence holds, the request does not


@pytest.mark.parametrize("what", ["foreign", "a later version", "unreadable names", "another key", "RSA", "junk"])
def test_a_request_that_cannot_be_granted_refuses_the_whole_evidence(bench: Bench, what: str) -> None:
    request = {
        "foreign": partial(named, "evil.example.com"),
        "a later version": partial(write, version=1),
        "unreadable names": partial(write, alternative_names(der.tlv(0xA3, b""))),
        "another key": partial(write, key=spki(OTHER_KEY)),
        "RSA": partial(by_library, rsa.generate_private_key(65537, 2048), SHA384()),
        "junk": partial(bytes, 40),
    }[what]()
    attempt = bench.boot().attempt()
    attempt.greet()
    attempt.evidence(request=request)
    refuse_evidence(attempt, code="refused", reason="csr_invalid")
    again = bench.boot().attempt(ticket=attempt.ticket)
    again.opened(again.run())  # nothing was spent
