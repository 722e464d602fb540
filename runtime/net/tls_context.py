"""What a TLS connection may be: identities, versions, suites, and whose certificate is believed. No I/O and no clock.

TLS 1.2 and 1.3 with authenticated encryption and ephemeral keys only (Mozilla's "intermediate", less its DHE suites); no compression,
no renegotiation, no early data. A session is kept by nobody but the client, in a ticket (net/tls_rotation.py says for how long).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Literal, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from OpenSSL import SSL, _util, crypto

from runtime.protocol.errors import ProtocolError

PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
Version: TypeAlias = Literal["1.2", "1.3"]

_SUITES_12 = b":".join(
    f"ECDHE-{authentication}-{cipher}".encode()
    for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
    for authentication in ("ECDSA", "RSA")
)
_SUITES_13 = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
_GROUPS = b"*X25519MLKEM768/*X25519:P-256:P-384"
"""By preference. "/" ends what is preferred so much that a client which has it, but sent no key share of it, is asked for one; a client
sends key shares of those with a star."""
_SIGNATURES = b":".join(
    [b"ecdsa_secp256r1_sha256", b"ecdsa_secp384r1_sha384", b"ecdsa_secp521r1_sha512", b"ed25519"]
    + [b"rsa_%b_sha%d" % (padding, size) for padding in (b"pss_rsae", b"pss_pss", b"pkcs1") for size in (256, 384, 512)]
)
"""Without SHA-1 and SHA-224; PKCS #1 v1.5 is for certificates and for TLS 1.2."""
_PRIORITIZE_CHACHA = 1 << 21  # SSL_OP_PRIORITIZE_CHACHA, which pyOpenSSL does not name
TICKET_SECONDS = 3600
"""How long a client may resume a session."""
_VERSIONS = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}
_CHAIN_MAX = 8


class TlsError(ProtocolError):
    """A handshake that failed, by the peer's fault or choice.

    Reasons: "tls_handshake" (no common parameters, an alert, bytes that are not TLS), "tls_closed" (the peer ended or reset it),
    "tls_alpn", "tls_certificate" (not issued by the roots for this purpose and time, or unreadable), "tls_name".
    """


class NoCommonProtocol(Exception):
    """Raised in the ALPN callback, which makes OpenSSL send alert 120 (RFC 7301 section 3.2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsIdentity:
    """A certificate chain, leaf first, and its leaf's private key; `names` are the server names (SNI) it is served for."""

    names: tuple[str, ...]
    chain: tuple[x509.Certificate, ...]
    key: PrivateKey = field(repr=False)

    def __post_init__(self) -> None:
        if not self.chain:
            raise ValueError("an identity needs a certificate")
        if self.chain[0].public_key() != self.key.public_key():
            raise ValueError("the private key does not belong to the leaf certificate")


@dataclass(slots=True)
class Expected:
    """What a client connection requires of the server's leaf; the verification callback finds it as the connection's app data."""

    server_name: str | None  # None: any name
    refusal: tuple[str, str] | None = None  # reason and detail
    leaf_seen: bool = False


def server_context(
    identities: Sequence[TlsIdentity],
    *,
    min_version: Version = "1.2",
    alpn: Sequence[str] = ("http/1.1",),
    ask_client_certificate: bool = False,
) -> SSL.Context:
    """A context to accept with. The first identity serves clients that ask for none of the names; the others are found by SNI.

    A client that offers ALPN without any of `alpn` gets alert 120; one that offers none is accepted. With `ask_client_certificate`
    any certificate is taken as proof that the client holds its key, self-signed ones too: the caller compares it with a pinned one.
    """
    if not identities:
        raise ValueError("a server needs an identity")
    first, *others = (_one_server_context(identity, min_version, alpn, ask_client_certificate) for identity in identities)
    by_name: dict[
        str, SSL.Context | None
    ] = {}  # None is the first: no cycle keeps it, and its ticket key, when nobody uses it any more
    for identity, context in zip(identities, (None, *others), strict=True):
        for name in identity.names:
            by_name.setdefault(name.lower(), context)

    def select(connection: SSL.Connection) -> None:
        name = (connection.get_servername() or b"").decode("ascii", "replace").lower()
        found = by_name.get(name if name in by_name else f"*.{name.partition('.')[2]}")
        if found is not None:
            connection.set_context(found)

    first.set_tlsext_servername_callback(select)
    return first


def client_context(
    roots: Sequence[x509.Certificate] | None,
    *,
    now: datetime,
    identity: TlsIdentity | None = None,
    min_version: Version = "1.2",
    alpn: Sequence[str] = ("http/1.1",),
) -> SSL.Context:
    """A context to connect with, which believes chains to exactly `roots` at the time `now` (aware), made for TLS servers.

    With `roots` None the chain is not judged at all: only for a caller that judges attestation evidence of the leaf's key instead.
    """
    context = _context(SSL.TLS_CLIENT_METHOD, min_version)
    context.set_verify(SSL.VERIFY_PEER, _judge_nothing if roots is None else _judge_chain)
    context.set_verify_depth(_CHAIN_MAX)
    store = context.get_cert_store()
    assert store is not None
    store.set_time(now.astimezone(UTC))
    store.set_flags(crypto.X509StoreFlags.X509_STRICT)
    for root in roots or ():
        store.add_cert(crypto.X509.from_cryptography(root))
    if alpn:
        context.set_alpn_protos([protocol.encode() for protocol in alpn])
    if identity is not None:
        _use_identity(context, identity)
    return context


def is_named(certificate: x509.Certificate, server_name: str) -> bool:
    """Whether the leaf's subjectAltName has `server_name` (RFC 9525): the address, or the DNS name, or `*` for its first label.

    The common name is never looked at, and a name is never taken for an address or the other way round.
    """
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        dns_names = {name.lower() for name in names.get_values_for_type(x509.DNSName)}
        addresses = names.get_values_for_type(x509.IPAddress)
    except (x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, ValueError):
        return False
    if (address := as_address(server_name)) is not None:
        return address in addresses
    name = server_name.lower()
    return name in dns_names or f"*.{name.partition('.')[2]}" in dns_names


def as_address(server_name: str) -> IPv4Address | IPv6Address | None:
    """The IP address that `server_name` is, or None."""
    try:
        return ip_address(server_name)
    except ValueError:
        return None


def _context(method: int, min_version: Version) -> SSL.Context:
    context = SSL.Context(method)
    context.set_min_proto_version(_VERSIONS[min_version])
    context.set_max_proto_version(SSL.TLS1_3_VERSION)
    context.set_cipher_list(_SUITES_12)
    context.set_tls13_ciphersuites(_SUITES_13)
    _use_list(context, "SSL_CTX_set1_curves_list", _GROUPS)
    _use_list(context, "SSL_CTX_set1_sigalgs_list", _SIGNATURES)
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)  # an idle connection holds no record buffers
    return context


def _use_list(context: SSL.Context, function: str, names: bytes) -> None:
    """Calls a setter that pyOpenSSL's library has and pyOpenSSL does not offer. Raises ValueError for a name that OpenSSL lacks."""
    library: Any = _util.lib
    if getattr(library, function)(context._context, names) != 1:
        raise ValueError(f"OpenSSL refuses {names.decode()}")


def _one_server_context(
    identity: TlsIdentity, min_version: Version, alpn: Sequence[str], ask_client_certificate: bool
) -> SSL.Context:
    context = _context(SSL.TLS_SERVER_METHOD, min_version)
    _use_identity(context, identity)
    # Our order counts, but for clients that put ChaCha20 first, because their processors have no AES.
    context.set_options(SSL.OP_CIPHER_SERVER_PREFERENCE | _PRIORITIZE_CHACHA)
    context.set_app_data(identity)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)  # tickets alone: nothing here that grows with the number of clients
    context.set_timeout(TICKET_SECONDS)
    # One id for all identities, without which OpenSSL refuses to resume where it asks for client certificates.
    context.set_session_id(b"enclave-runtime")
    if alpn:
        context.set_alpn_select_callback(_alpn_selector([protocol.encode() for protocol in alpn]))
    if ask_client_certificate:
        context.set_verify(SSL.VERIFY_PEER, lambda *_: True)
    return context


def _use_identity(context: SSL.Context, identity: TlsIdentity) -> None:
    context.use_certificate(identity.chain[0])
    for certificate in identity.chain[1:]:
        context.add_extra_chain_cert(certificate)
    context.use_privatekey(identity.key)


def _alpn_selector(ours: Sequence[bytes]) -> Callable[[SSL.Connection, list[bytes]], bytes]:
    def select(_: SSL.Connection, offered: list[bytes]) -> bytes:
        for protocol in ours:
            if protocol in offered:
                return protocol
        raise NoCommonProtocol

    return select


def _judge_chain(connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, is_valid: int) -> bool:
    expected = connection.get_app_data()
    if not is_valid:
        expected.refusal = ("tls_certificate", f"OpenSSL verification error {error} at depth {depth}")
        return False
    return _judge_nothing(connection, certificate, error, depth, is_valid)


def _judge_nothing(connection: SSL.Connection, certificate: crypto.X509, _error: int, depth: int, _is_valid: int) -> bool:
    """The name alone, which is checked inside the handshake so that a server with another name gets an alert and no data."""
    if depth > 0:
        return True
    expected: Expected = connection.get_app_data()
    try:
        leaf = certificate.to_cryptography()
    except ValueError:
        expected.refusal = ("tls_certificate", "the server's certificate cannot be read")
        return False
    expected.leaf_seen = True
    if expected.server_name is not None and not is_named(leaf, expected.server_name):
        expected.refusal = ("tls_name", f"the server's certificate is not for {expected.server_name}")
        return False
    return True
