"""COSE_Sign1 (RFC 9052 section 4.2), untagged: the envelope of attestation documents and of releases.

`parse_sign1` and `open_ed25519` are for our own messages, in deterministic encoding. The NSM's envelope is read by
`runtime.protocol.document`, which shares only `sig_structure`.
"""

from typing import TYPE_CHECKING

from runtime.protocol import cbor
from runtime.protocol.errors import Malformed, Refused
from runtime.protocol.fields import octets

if TYPE_CHECKING:  # whoever has a key has loaded the library; PID 1, which reads documents for their time, has none
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

ES384 = -35
EDDSA = -8
_ED25519_PROTECTED = cbor.encode({1: EDDSA})


def sig_structure(protected: bytes, external_aad: bytes, payload: bytes) -> bytes:
    """The bytes that are signed: `["Signature1", protected, external_aad, payload]` (RFC 9052 section 4.4)."""
    return cbor.encode(["Signature1", protected, external_aad, payload])


def sign_ed25519(key: "Ed25519PrivateKey", payload: bytes, *, external_aad: bytes) -> bytes:
    """An untagged COSE_Sign1 by EdDSA over `payload`."""
    signature = key.sign(sig_structure(_ED25519_PROTECTED, external_aad, payload))
    return cbor.encode([_ED25519_PROTECTED, {}, payload, signature])


def open_ed25519(data: bytes, key: "Ed25519PublicKey", *, external_aad: bytes, max_size: int) -> bytes:
    """The payload of an untagged COSE_Sign1, its signature verified. Raises `Malformed`, or `Refused` with "bad_signature"."""
    from cryptography.exceptions import InvalidSignature

    payload, signature = split_ed25519(data, max_size=max_size)
    try:
        key.verify(signature, sig_structure(_ED25519_PROTECTED, external_aad, payload))
    except InvalidSignature:
        raise Refused("bad_signature", "the signature does not verify") from None
    return payload


def split_ed25519(data: bytes, *, max_size: int) -> tuple[bytes, bytes]:
    """(payload, signature) of an untagged EdDSA COSE_Sign1, nothing verified: to find out which key to verify with."""
    match cbor.decode(data, max_size=max_size):
        case [protected, unprotected, payload, signature]:
            if protected != _ED25519_PROTECTED or unprotected != {}:
                raise Malformed("a COSE_Sign1 by another algorithm, or with unprotected headers")
            return octets(payload, "payload", most=max_size), octets(signature, "signature", size=64)
        case _:
            raise Malformed("a COSE_Sign1 is an array of four")
