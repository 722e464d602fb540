"""The one hash of the protocols: `H(x)` is SHA-384."""

from hashlib import sha384

from runtime.protocol import cbor

SIZE = 48
"""Bytes of a digest."""


def digest(data: bytes) -> bytes:
    """`H(data)`, 48 bytes."""
    return sha384(data).digest()


def digest_of(value: object) -> bytes:
    """`H(dCBOR(value))`, 48 bytes."""
    return digest(cbor.encode(value))
