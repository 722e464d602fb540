"""TLS identities: the key is made inside and never leaves; what leaves is a request for a certificate on it."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_private_key
from OpenSSL import SSL

from runtime.net.tls import TlsIdentity, server_context
from runtime.protocol.bundle import DeliveredIdentity
from runtime.protocol.errors import Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsKey:
    """A key on P-256 and the PKCS#10 request (DER) that proves its possession."""

    private: ec.EllipticCurvePrivateKey
    request: bytes

    def __repr__(self) -> str:
        return "TlsKey(not shown)"


def make_tls_key(names: tuple[str, ...]) -> TlsKey:
    """A fresh key and a request for `names`."""
    key = ec.generate_private_key(ec.SECP256R1())
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=True)
        .sign(key, SHA256())
    )
    return TlsKey(private=key, request=request.public_bytes(Encoding.DER))


def accept_identities(delivered: Iterable[DeliveredIdentity], own: TlsKey | None, *, now: datetime) -> tuple[TlsIdentity, ...]:
    """The identities of a bundle, ready to serve. Raises `Refused`: certificate_syntax, certificate_key, certificate_time.

    A leaf must be for the key that goes with it: our own where none was delivered. Nothing is served that is expired or not yet valid.
    """
    accepted = tuple(_accept(identity, own, now) for identity in delivered)
    try:
        if accepted:
            server_context(accepted)
    except (SSL.Error, ValueError) as error:  # on a curve that no client has, say: better found here than by every worker
        raise Refused("certificate_key", "OpenSSL does not serve a certificate of the bundle") from error
    return accepted


def _accept(identity: DeliveredIdentity, own: TlsKey | None, now: datetime) -> TlsIdentity:
    try:
        chain = tuple(x509.load_der_x509_certificate(der) for der in identity.chain)
        key = load_der_private_key(identity.key.reveal(), None) if identity.key is not None else own and own.private
        leaf_key = chain[0].public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, TypeError, x509.InvalidVersion, UnsupportedAlgorithm) as error:  # TypeError: a key under a password
        raise Refused("certificate_syntax", "a certificate or key in the bundle cannot be read") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Refused("certificate_key", "a certificate without a key on an elliptic curve")
    if key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) != leaf_key:
        raise Refused("certificate_key", "the leaf is for another key than ours")
    if not chain[0].not_valid_before_utc <= now <= chain[0].not_valid_after_utc:
        raise Refused("certificate_time", "the leaf is not valid now")
    return TlsIdentity(names=identity.names, chain=chain, key=key)
