"""Contexts that change under a server: new chains and new ticket keys; and which groups, signatures and sessions a handshake may have."""

import weakref
from datetime import UTC, datetime

import pytest
import trio
import trio.testing
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL, _util

from runtime.net.tls import client_context, server_context
from runtime.net.tls_rotation import TICKET_KEY_SECONDS, ServerContexts
from tests.support.certificates import make_ca
from tests.support.tls import at_most, handshake, resume

NOW = datetime(2026, 11, 20, tzinfo=UTC)
CA = make_ca("root", NOW)
A, B = CA.issue(("a.example",)), CA.issue(("b.example",))
A_RENEWED = CA.issue(("a.example",))

both_versions = pytest.mark.parametrize("version", ["1.2", "1.3"])


def believing(version: str = "1.3") -> SSL.Context:
    return at_most(client_context([CA.certificate], now=NOW), "1.2" if version == "1.2" else "1.3")


def offering(list_name: str, names: bytes, version: str = "1.3") -> SSL.Context:
    """A client with only these groups or signatures, which pyOpenSSL has no way to choose."""
    context = believing(version)
    assert getattr(_util.lib, list_name)(context._context, names) == 1
    return context


async def is_resumed(before: SSL.Context, after: SSL.Context, version: str) -> bool:
    _, expected = await resume(before, believing(version), "a.example", "a.example", later=after)
    return not expected.leaf_seen


@both_versions
async def test_a_ticket_resumes_until_its_key_was_changed_and_never_after(
    version: str, autojump_clock: trio.testing.MockClock
) -> None:
    contexts = ServerContexts([A, B])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(contexts.rotate)
        first = contexts.current()
        await trio.sleep(TICKET_KEY_SECONDS - 1)
        assert contexts.current() is first
        assert await is_resumed(first, contexts.current(), version)
        for _ in range(2):
            await trio.sleep(TICKET_KEY_SECONDS)
            assert not await is_resumed(first, contexts.current(), version)
        assert await is_resumed(contexts.current(), contexts.current(), version)
        nursery.cancel_scope.cancel()


@both_versions
async def test_a_new_chain_is_served_at_once_while_old_connections_go_on(version: str) -> None:
    contexts = ServerContexts([A, B])
    old = contexts.current()
    async with await handshake(old, believing(version)) as before:
        contexts.replace([A_RENEWED, B])
        async with await handshake(contexts.current(), believing(version)) as after:
            assert after.both()[1].peer_certificate == after.both()[0].own_certificate == A_RENEWED.chain[0]
        server, client = before.both()
        assert server.own_certificate == A.chain[0]
        for sender, receiver in ((server, client), (client, server)):
            await sender.send_all(b"goes on")
            assert await receiver.receive_some() == b"goes on"
    assert not await is_resumed(old, contexts.current(), version)


def test_a_context_and_its_ticket_key_go_with_the_last_connection() -> None:
    """At once, not when a collector comes by."""
    contexts = ServerContexts([A, B])
    context, connection = weakref.ref(contexts.current()), SSL.Connection(contexts.current(), None)
    contexts.replace([A, B])
    assert context() is not None
    del connection
    assert context() is None


async def test_a_session_is_kept_by_nobody_but_the_client() -> None:
    """A client of TLS 1.2 that takes no tickets has only a session id, which means nothing here."""
    server, client = server_context([A]), believing("1.2")
    client.set_options(SSL.OP_NO_TICKET)
    _, expected = await resume(server, client, "a.example", "a.example")
    assert expected.leaf_seen


@both_versions
@pytest.mark.parametrize(("offered", "agreed"), [(b"X25519:P-256", "x25519"), (b"P-256", "secp256r1"), (b"P-384", "secp384r1")])
async def test_the_classical_groups(offered: bytes, agreed: str, version: str) -> None:
    client = offering("SSL_CTX_set1_curves_list", offered, version)
    identity = CA.issue(("a.example",), key=ec.generate_private_key(ec.SECP384R1() if agreed == "secp384r1" else ec.SECP256R1()))
    async with await handshake(server_context([identity]), client) as ends:  # in TLS 1.2 the leaf's curve has to be offered too
        assert {end.group for end in ends.both()} == {agreed}


@both_versions
@pytest.mark.parametrize("offered", [b"X448", b"P-521", b"ffdhe3072", b"brainpoolP256r1tls13:brainpoolP256r1"])
async def test_other_groups_are_refused(offered: bytes, version: str) -> None:
    client = offering("SSL_CTX_set1_curves_list", offered, version)
    async with await handshake(server_context([A]), client) as ends:
        assert ends.reasons() == ("tls_handshake", "tls_handshake")


async def test_a_client_that_has_the_hybrid_group_is_asked_for_it() -> None:
    """Its key share is of another group: it costs a round trip and is worth it."""
    for offered in (b"*X25519:X25519MLKEM768", b"*P-256:X25519:X25519MLKEM768"):
        async with await handshake(server_context([A]), offering("SSL_CTX_set1_curves_list", offered)) as ends:
            assert {end.group for end in ends.both()} == {"X25519MLKEM768"}
    async with await handshake(server_context([A]), offering("SSL_CTX_set1_curves_list", b"*P-256:X25519")) as ends:
        assert {end.group for end in ends.both()} == {"secp256r1"}  # which a choice among equals is not


@both_versions
@pytest.mark.parametrize("offered", [b"ECDSA+SHA224", b"ECDSA+SHA1", b"rsa_pss_rsae_sha256"])
async def test_a_client_that_takes_only_old_signatures_or_those_of_other_keys_is_refused(offered: bytes, version: str) -> None:
    client = offering("SSL_CTX_set1_sigalgs_list", offered, version)
    client.set_cipher_list(b"ECDHE+AESGCM:@SECLEVEL=0")
    async with await handshake(server_context([A]), client) as ends:
        assert ends.reasons()[0] == "tls_handshake"


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1()], ids=lambda curve: curve.name)
@both_versions
async def test_the_curves_of_a_leaf(curve: ec.EllipticCurve, version: str) -> None:
    identity = CA.issue(("a.example",), key=ec.generate_private_key(curve))
    async with await handshake(server_context([identity]), believing(version)) as ends:
        assert ends.both()[1].peer_certificate == identity.chain[0]


async def test_a_leaf_on_p_521_is_for_tls_1_3_alone() -> None:
    """The groups of TLS 1.2 are those of certificates too, and no other server asks for that one."""
    identity = CA.issue(("a.example",), key=ec.generate_private_key(ec.SECP521R1()))
    for version, reason in (("1.3", None), ("1.2", "tls_handshake")):
        async with await handshake(server_context([identity]), believing(version)) as ends:
            assert ends.reasons()[0] == reason


@pytest.mark.parametrize(
    ("offered", "agreed"),
    [("AES256-GCM:CHACHA20:AES128-GCM", "AES128-GCM"), ("AES256-GCM:CHACHA20", "AES256-GCM"), ("CHACHA20:AES128-GCM", "CHACHA20")],
)
@both_versions
async def test_the_order_of_suites_is_the_servers_unless_a_client_puts_chacha20_first(
    offered: str, agreed: str, version: str
) -> None:
    client = believing(version)
    suites = {
        "AES128-GCM": ("TLS_AES_128_GCM_SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256"),
        "AES256-GCM": ("TLS_AES_256_GCM_SHA384", "ECDHE-ECDSA-AES256-GCM-SHA384"),
        "CHACHA20": ("TLS_CHACHA20_POLY1305_SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"),
    }
    client.set_tls13_ciphersuites(":".join(suites[name][0] for name in offered.split(":")).encode())
    client.set_cipher_list(":".join(suites[name][1] for name in offered.split(":")).encode())
    async with await handshake(server_context([A]), client) as ends:
        assert ends.both()[1]._connection.get_cipher_name() in suites[agreed]
