"""Certificate requests (PKCS#10) written by hand: right ones, and such as no library would make."""

from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA384, HashAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support import der_writer as der

KEY = ec.generate_private_key(ec.SECP256R1())
OTHER_KEY = ec.generate_private_key(ec.SECP256R1())


def spki(key: Any) -> bytes:
    encoded: bytes = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return encoded


def dns(name: str) -> bytes:
    return der.tlv(0x82, name.encode("latin-1"))


def alternative_names(*names: bytes) -> bytes:
    """The extension, of GeneralNames that stand as they are."""
    return der.extension("2.5.29.17", der.sequence(*names))


def write(
    *extensions: bytes,
    version: int = 0,
    key: bytes | None = None,
    subject: bytes | None = None,
    attributes: bytes | None = None,
    signer: ec.EllipticCurvePrivateKey = KEY,
    hash_: HashAlgorithm | None = None,
    algorithm: bytes = der.ECDSA_SHA384,
) -> bytes:
    """A request in DER with `extensions` in its extensionRequest attribute, signed by `signer` whatever `key` it names."""
    if attributes is None:
        requested = der.sequence(der.oid("1.2.840.113549.1.9.14"), der.tlv(0x31, der.sequence(*extensions)))
        attributes = requested if extensions else b""
    info = der.sequence(
        der.integer(version), subject or der.sequence(), spki(signer) if key is None else key, der.tlv(0xA0, attributes)
    )
    return der.sequence(info, algorithm, der.bits(signer.sign(info, ec.ECDSA(hash_ or SHA384()))))


def named(*names: str) -> bytes:
    """A right request for DNS names."""
    return write(alternative_names(*map(dns, names)))
