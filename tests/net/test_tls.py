"""TLS handshakes: whom a client believes, which identity a server shows, and what a peer that is refused gets to see."""

import dataclasses
import ssl
from datetime import UTC, datetime, timedelta

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from OpenSSL import SSL

from runtime.net.tls import TlsIdentity, TlsStream, client_context, server_context
from tests.support.certificates import make_ca
from tests.support.sockets import socket_pair
from tests.support.tls import Ends, at_most, handshake, resume

NOW = datetime(2026, 11, 20, tzinfo=UTC)
CA = make_ca("root", NOW)
A = CA.issue(("a.example", "www.a.example", "127.0.0.1", "2001:db8::1"))
B = CA.intermediate("intermediate").issue(("b.example", "*.b.example"))


def believing(*, now: datetime = NOW) -> SSL.Context:
    return client_context([CA.certificate], now=now)


async def shown(server_name: str, *identities: TlsIdentity, context: SSL.Context | None = None) -> Ends:
    return await handshake(server_context(identities or (A, B)), context or believing(), server_name=server_name)


async def test_a_connection_tells_what_was_agreed_on() -> None:
    async with await shown("WWW.a.example") as ends:
        server, client = ends.both()
        assert (server.server_name, client.server_name) == ("www.a.example", "WWW.a.example")
        assert client.peer_certificate == server.own_certificate == A.chain[0]
        assert (server.peer_certificate, client.own_certificate) == (None, None)
        for end in (server, client):
            assert (end.version, end.group, end.alpn) == ("1.3", "X25519MLKEM768", "http/1.1")


@pytest.mark.parametrize(
    ("name", "identity"), [("b.example", B), ("x.B.example", B), ("a.example", A), ("127.0.0.1", A), ("2001:db8::1", A)]
)
@pytest.mark.parametrize("version", ["1.2", "1.3"])
async def test_the_identity_is_chosen_by_name(name: str, identity: TlsIdentity, version: str) -> None:
    context = at_most(believing(), "1.2") if version == "1.2" else believing()
    async with await shown(name, context=context) as ends:
        server, client = ends.both()
        assert client.peer_certificate == server.own_certificate == identity.chain[0]
        assert client.version == version


async def test_a_name_that_nobody_has_gets_the_first_identity() -> None:
    for identities in ((A, B), (B, A)):
        ends = await handshake(server_context(identities), believing(), server_name="nobody.example", check_name=False)
        async with ends:
            assert ends.both()[0].own_certificate == identities[0].chain[0]


@pytest.mark.parametrize(
    "name", ["c.example", "a.example.evil", "example", "x.y.b.example", "b", "127.0.0.2", "::1", "x.a.example"]
)
async def test_a_certificate_for_another_name_is_refused(name: str) -> None:
    async with await shown(name) as ends:
        assert ends.reasons() == ("tls_handshake", "tls_name")


async def test_a_short_form_of_an_address_is_not_that_address() -> None:
    async with await shown("127.1", A) as ends:
        assert ends.reasons() == ("tls_handshake", "tls_name")


async def test_the_common_name_is_not_looked_at() -> None:
    async with await shown("common.example", CA.issue(("other.example",), common_name="common.example")) as ends:
        assert ends.reasons() == ("tls_handshake", "tls_name")


async def test_a_name_need_not_fit_when_the_caller_knows_better() -> None:
    async with await handshake(server_context([A]), client_context(None, now=NOW), check_name=False, server_name="enclave") as ends:
        assert ends.both()[1].peer_certificate == A.chain[0]


async def test_without_roots_the_name_is_still_checked_and_the_chain_is_not() -> None:
    stranger = make_ca("stranger", NOW).issue(("a.example",), not_after=NOW - timedelta(minutes=1))
    for name, reasons in (("a.example", (None, None)), ("b.example", ("tls_handshake", "tls_name"))):
        async with await shown(name, stranger, context=client_context(None, now=NOW)) as ends:
            assert ends.reasons() == reasons


@pytest.mark.parametrize(
    "identity",
    [
        make_ca("root", NOW).issue(("a.example",)),
        CA.issue(("a.example",), not_after=NOW - timedelta(seconds=1)),
        CA.issue(("a.example",), not_before=NOW + timedelta(seconds=1)),
        CA.issue(("a.example",), client=True),
        dataclasses.replace(B, chain=B.chain[:1]),
    ],
    ids=["another root of the same name", "expired", "not yet valid", "for clients", "intermediate missing"],
)
async def test_a_chain_that_does_not_hold_is_refused(identity: TlsIdentity) -> None:
    async with await shown("a.example", identity) as ends:
        assert ends.reasons() == ("tls_handshake", "tls_certificate")


async def test_time_is_what_the_caller_says_it_is() -> None:
    for now, reasons in (
        (NOW + timedelta(days=89), (None, None)),
        (NOW + timedelta(days=91), ("tls_handshake", "tls_certificate")),
        (NOW - timedelta(days=2), ("tls_handshake", "tls_certificate")),
        ((NOW + timedelta(days=89)).astimezone(), (None, None)),
    ):
        async with await shown("a.example", context=believing(now=now)) as ends:
            assert ends.reasons() == reasons


async def test_an_intermediate_is_no_root() -> None:
    intermediate = CA.intermediate("intermediate")
    ends = await shown("a.example", intermediate.issue(("a.example",)), context=client_context([intermediate.certificate], now=NOW))
    async with ends:
        assert ends.reasons() == ("tls_handshake", "tls_certificate")


async def test_a_root_must_be_made_as_rfc_5280_says() -> None:
    """OpenSSL's strict mode: this one lacks key usage and a subject key identifier."""
    template = CA.certificate
    builder = x509.CertificateBuilder(template.issuer, template.subject, CA.key.public_key(), template.serial_number)
    builder = builder.not_valid_before(NOW - timedelta(days=1)).not_valid_after(NOW + timedelta(days=1))
    root = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(CA.key, hashes.SHA256())
    async with await shown("a.example", context=client_context([root], now=NOW)) as ends:
        assert ends.reasons() == ("tls_handshake", "tls_certificate")


async def test_no_roots_at_all_believe_nobody() -> None:
    async with await shown("a.example", context=client_context([], now=NOW)) as ends:
        assert ends.reasons() == ("tls_handshake", "tls_certificate")


async def test_a_client_certificate_is_asked_for_and_may_be_absent() -> None:
    asking = server_context([A], ask_client_certificate=True)
    known = CA.issue(("parent",), client=True)
    self_signed = make_ca("nobody", NOW)
    unknown = TlsIdentity(names=("nobody",), chain=(self_signed.certificate,), key=self_signed.key)
    expired = CA.issue(("parent",), client=True, not_after=NOW - timedelta(seconds=1))
    for identity in (None, known, unknown, expired):
        for version in ("1.2", "1.3"):
            context = client_context([CA.certificate], now=NOW, identity=identity)
            async with await handshake(asking, at_most(context, "1.2") if version == "1.2" else context) as ends:
                server, _ = ends.both()
                assert server.version == version
                assert server.peer_certificate == (identity.chain[0] if identity else None)


async def test_a_client_certificate_that_was_not_asked_for_is_not_sent() -> None:
    context = client_context([CA.certificate], now=NOW, identity=CA.issue(("parent",), client=True))
    async with await shown("a.example", context=context) as ends:
        assert ends.both()[0].peer_certificate is None


async def test_no_common_version_is_refused() -> None:
    strict = server_context([A], min_version="1.3")
    async with await handshake(strict, at_most(believing(), "1.2")) as ends:
        assert ends.reasons() == ("tls_handshake", "tls_handshake")
    modern = client_context([CA.certificate], now=NOW, min_version="1.3")
    async with await handshake(at_most(server_context([A]), "1.2"), modern) as ends:
        assert ends.reasons() == ("tls_handshake", "tls_handshake")


@pytest.mark.parametrize(
    "suites", [b"ECDHE-ECDSA-AES256-SHA384", b"ECDHE-ECDSA-AES128-SHA", b"ECDHE-ECDSA-AES256-CCM", b"AES128-GCM-SHA256"]
)
async def test_a_client_with_old_suites_only_is_refused(suites: bytes) -> None:
    context = at_most(believing(), "1.2")
    context.set_cipher_list(suites + b":@SECLEVEL=0")
    async with await handshake(server_context([A]), context) as ends:
        assert ends.reasons() == ("tls_handshake", "tls_handshake")


async def test_application_protocols_are_chosen_in_the_servers_order() -> None:
    for server, client, agreed in (
        (("h2", "http/1.1"), ("http/1.1", "h2"), "h2"),
        (("acme-tls/1",), ("acme-tls/1",), "acme-tls/1"),
        ((), ("h2",), None),
        (("http/1.1",), (), None),
    ):
        context = client_context([CA.certificate], now=NOW, alpn=client)
        async with await handshake(server_context([A, B], alpn=server), context, server_name="b.example") as ends:
            assert [end.alpn for end in ends.both()] == [agreed, agreed]


async def test_no_common_application_protocol_is_refused_by_its_own_alert() -> None:
    for name in ("a.example", "b.example"):
        context = client_context([CA.certificate], now=NOW, alpn=("h2",))
        async with await handshake(server_context([A, B]), context, server_name=name) as ends:
            assert ends.reasons() == ("tls_alpn", "tls_handshake")


@pytest.mark.parametrize("ask_client_certificate", [False, True])
@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize(("name", "identity"), [("a.example", A), ("b.example", B)])
async def test_a_resumed_connection_still_knows_its_identity(
    name: str, identity: TlsIdentity, version: str, ask_client_certificate: bool
) -> None:
    server = server_context([A, B], ask_client_certificate=ask_client_certificate)
    client = at_most(believing(), "1.2") if version == "1.2" else believing()
    stream, expected = await resume(server, client, name, name)
    assert not expected.leaf_seen  # no certificate was sent: it did resume
    assert (stream.version, stream.server_name) == (version, name)
    assert stream.own_certificate == identity.chain[0]


async def test_a_session_of_one_identity_counts_as_the_other_where_that_one_is_asked_for() -> None:
    """What evidence then commits to is not the key that the client saw, so the client refuses it."""
    stream, _ = await resume(server_context([A, B]), believing(), "a.example", "b.example")
    assert stream.own_certificate == B.chain[0]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_pythons_own_tls_agrees_at_either_end(version: ssl.TLSVersion, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("tls") / "identity.pem"
    key = A.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(key + b"".join(certificate.public_bytes(Encoding.PEM) for certificate in A.chain))
    theirs_client = ssl.create_default_context(cadata=CA.certificate.public_bytes(Encoding.PEM).decode())
    theirs_client.verify_flags |= 0x200000  # X509_V_FLAG_NO_CHECK_TIME: the certificates are of the tests' own time
    theirs_server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    theirs_server.load_cert_chain(path)
    for context in (theirs_client, theirs_server):
        context.minimum_version = context.maximum_version = version
        context.set_alpn_protocols(["http/1.1"])

    async def talk(receiver: trio.abc.Stream, sender: trio.abc.Stream) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sender.send_all, bytes(100_000))
            received = b""
            while len(received) < 100_000:
                received += await receiver.receive_some()
            assert received == bytes(100_000)

    near, far = socket_pair()
    theirs = trio.SSLStream(near, theirs_client, server_hostname="a.example", https_compatible=True)
    async with trio.open_nursery() as nursery, theirs:
        nursery.start_soon(theirs.do_handshake)
        ours = await TlsStream.accept(far, server_context([A]))
        await talk(theirs, ours)
        await talk(ours, theirs)
        await ours.aclose()
        assert await theirs.receive_some() == b""

    near, far = socket_pair()
    theirs = trio.SSLStream(near, theirs_server, server_side=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(theirs.do_handshake)
        ours = await TlsStream.connect(far, believing(), server_name="a.example")
        await talk(theirs, ours)
        await talk(ours, theirs)
        nursery.start_soon(theirs.aclose)
        assert await ours.receive_some() == b""
        await ours.aclose()


def test_an_identity_does_not_show_its_key_and_fits_it() -> None:
    assert "key" not in repr(A)
    with pytest.raises(ValueError, match="does not belong"):
        dataclasses.replace(A, key=ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(ValueError, match="needs a certificate"):
        dataclasses.replace(A, chain=())
    with pytest.raises(ValueError, match="needs an identity"):
        server_context([])
