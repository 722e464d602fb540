"""Sealing to a key that one boot of one image holds: HPKE base mode (RFC 9180) in three suites.

All use HKDF-SHA256 and AES-256-GCM. The ephemeral key of a seal is drawn by the cryptography library itself, the one piece of
randomness that this layer cannot be handed.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric import ec, mlkem, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from runtime.protocol.errors import Malformed, Refused


class Suite(IntEnum):
    """The numbers of PROV/1. X_WING is ML-KEM-768 with X25519: safe against a recording made today and a quantum computer later."""

    X25519 = 1
    P256 = 2
    X_WING = 3


PrivateKey: TypeAlias = x25519.X25519PrivateKey | ec.EllipticCurvePrivateKey | hpke.MLKEM768X25519PrivateKey
PublicKey: TypeAlias = x25519.X25519PublicKey | ec.EllipticCurvePublicKey | hpke.MLKEM768X25519PublicKey

_MLKEM768_SIZE = 1184
_X_WING_SIZE = _MLKEM768_SIZE + 32
_KEMS = {Suite.X25519: hpke.KEM.X25519, Suite.P256: hpke.KEM.P256, Suite.X_WING: hpke.KEM.MLKEM768_X25519}


@dataclass(frozen=True, slots=True, kw_only=True)
class SealingKey:
    """A recipient's key pair: the private half in the library's own type, the public half as it goes over the wire."""

    suite: Suite
    private: PrivateKey
    public: bytes

    def __repr__(self) -> str:
        return f"SealingKey({self.suite.name}, private key not shown)"


def generate_key(suite: Suite) -> SealingKey:
    """A fresh key. The kernel's generator must be seeded before (enclave/identity/entropy.py sees to it)."""
    match suite:
        case Suite.X25519:
            x_key = x25519.X25519PrivateKey.generate()
            return SealingKey(suite=suite, private=x_key, public=x_key.public_key().public_bytes_raw())
        case Suite.P256:
            p_key = ec.generate_private_key(ec.SECP256R1())
            point = p_key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
            return SealingKey(suite=suite, private=p_key, public=point)
        case Suite.X_WING:
            m_key, x_key = mlkem.MLKEM768PrivateKey.generate(), x25519.X25519PrivateKey.generate()
            public = m_key.public_key().public_bytes_raw() + x_key.public_key().public_bytes_raw()
            return SealingKey(suite=suite, private=hpke.MLKEM768X25519PrivateKey(m_key, x_key), public=public)


def load_public_key(suite: Suite, raw: bytes) -> PublicKey:
    """The key behind its wire form (RFC 9180 SerializePublicKey; for X-Wing ML-KEM's key, then X25519's). Raises `Malformed`."""
    try:
        match suite:
            case Suite.X25519:
                return x25519.X25519PublicKey.from_public_bytes(raw)
            case Suite.P256:
                if raw[:1] != b"\x04":
                    raise Malformed("a P-256 point that is not in uncompressed form", "hpke_key")
                return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), raw)
            case Suite.X_WING:
                if len(raw) != _X_WING_SIZE:
                    raise Malformed(f"an X-Wing key has {_X_WING_SIZE} bytes", "hpke_key")
                return hpke.MLKEM768X25519PublicKey(
                    mlkem.MLKEM768PublicKey.from_public_bytes(raw[:_MLKEM768_SIZE]),
                    x25519.X25519PublicKey.from_public_bytes(raw[_MLKEM768_SIZE:]),
                )
    except (ValueError, UnsupportedAlgorithm):
        raise Malformed("not a public key of the chosen suite", "hpke_key") from None


def seal(suite: Suite, public_key: bytes, plaintext: bytes, *, info: bytes) -> bytes:
    """`enc || ciphertext`. Raises `Malformed` for a public key that is none, `Refused` with "hpke_key" for a degenerate one."""
    key = load_public_key(suite, public_key)
    try:
        return _hpke(suite).encrypt(plaintext, key, info)
    except ValueError:  # a point of small order: the shared secret would be zero (RFC 9180 section 7.1.4)
        raise Refused("hpke_key", "a public key that gives no secret") from None


def open_sealed(key: SealingKey, sealed: bytes, *, info: bytes) -> bytes:
    """The plaintext. Raises `Refused` with "seal_broken" when it was not sealed to this key with this `info`."""
    try:
        return _hpke(key.suite).decrypt(sealed, key.private, info)
    except (InvalidTag, ValueError):
        raise Refused("seal_broken", "not sealed to this key, or for another handshake") from None


def _hpke(suite: Suite) -> hpke.Suite:
    return hpke.Suite(_KEMS[suite], hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
