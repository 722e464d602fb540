"""HPKE base mode with HKDF-SHA256 (RFC 9180), written from the RFC for tests alone: another implementation than the one under test.

KDF and key schedule are here, over hmac and hashlib; only curves, ML-KEM and AES-GCM are the library's.
"""

import hashlib
import hmac
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, mlkem, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

HKDF_SHA256 = 1
AES_128_GCM, AES_256_GCM = 1, 2
_KEY_SIZES = {AES_128_GCM: 16, AES_256_GCM: 32}
_NONCE_SIZE = 12


@dataclass(frozen=True, kw_only=True)
class Context:
    """What both ends have after the key schedule (section 5.1), for one message."""

    key: bytes
    base_nonce: bytes

    def seal(self, plaintext: bytes, *, aad: bytes = b"") -> bytes:
        """The first message of the context."""
        return AESGCM(self.key).encrypt(self.base_nonce, plaintext, aad)

    def open(self, ciphertext: bytes, *, aad: bytes = b"") -> bytes:
        """The first message of the context."""
        return AESGCM(self.key).decrypt(self.base_nonce, ciphertext, aad)


def _extract(salt: bytes, ikm: bytes) -> bytes:
    return hmac.digest(salt or bytes(32), ikm, "sha256")


def _expand(prk: bytes, info: bytes, length: int) -> bytes:
    output, block = b"", b""
    for counter in range(1, 256):
        if len(output) >= length:
            break
        block = hmac.digest(prk, block + info + bytes((counter,)), "sha256")
        output += block
    return output[:length]


def _labeled_extract(suite: bytes, salt: bytes, label: bytes, ikm: bytes) -> bytes:
    return _extract(salt, b"HPKE-v1" + suite + label + ikm)


def _labeled_expand(suite: bytes, prk: bytes, label: bytes, info: bytes, length: int) -> bytes:
    return _expand(prk, length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info, length)


class DhKem:
    """DHKEM of section 4.1 over one group, with HKDF-SHA256."""

    def __init__(self, kem_id: int) -> None:
        self.kem_id = kem_id
        self._suite = b"KEM" + kem_id.to_bytes(2, "big")

    def _shared(self, dh: bytes, enc: bytes, recipient: bytes) -> bytes:
        prk = _labeled_extract(self._suite, b"", b"eae_prk", dh)
        return _labeled_expand(self._suite, prk, b"shared_secret", enc + recipient, 32)


class X25519Kem(DhKem):
    """DHKEM(X25519, HKDF-SHA256)."""

    enc_size = 32

    def __init__(self) -> None:
        super().__init__(0x0020)

    def encapsulate(self, public: bytes, ephemeral: x25519.X25519PrivateKey) -> tuple[bytes, bytes]:
        """(shared secret, enc)."""
        enc = ephemeral.public_key().public_bytes_raw()
        dh = ephemeral.exchange(x25519.X25519PublicKey.from_public_bytes(public))
        return self._shared(dh, enc, public), enc

    def decapsulate(self, enc: bytes, private: Any) -> bytes:
        """The shared secret."""
        dh = private.exchange(x25519.X25519PublicKey.from_public_bytes(enc))
        return self._shared(dh, enc, private.public_key().public_bytes_raw())


class P256Kem(DhKem):
    """DHKEM(P-256, HKDF-SHA256); the Diffie-Hellman value is the x coordinate."""

    enc_size = 65

    def __init__(self) -> None:
        super().__init__(0x0010)

    def encapsulate(self, public: bytes, ephemeral: ec.EllipticCurvePrivateKey) -> tuple[bytes, bytes]:
        """(shared secret, enc)."""
        enc = _point(ephemeral)
        dh = ephemeral.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), public))
        return self._shared(dh, enc, public), enc

    def decapsulate(self, enc: bytes, private: Any) -> bytes:
        """The shared secret."""
        dh = private.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), enc))
        return self._shared(dh, enc, _point(private))


class XWingKem:
    """X-Wing (draft-connolly-cfrg-xwing-kem): SHA3-256 over both secrets, the X25519 ciphertext and key, and the label."""

    kem_id = 0x647A
    enc_size = 1088 + 32

    def encapsulate(self, public: bytes, ephemeral: x25519.X25519PrivateKey) -> tuple[bytes, bytes]:
        """(shared secret, enc)."""
        secret_m, enc_m = mlkem.MLKEM768PublicKey.from_public_bytes(public[:1184]).encapsulate()
        secret_x = ephemeral.exchange(x25519.X25519PublicKey.from_public_bytes(public[1184:]))
        enc_x = ephemeral.public_key().public_bytes_raw()
        return _combined(secret_m, secret_x, enc_x, public[1184:]), enc_m + enc_x

    def decapsulate(self, enc: bytes, private: tuple[mlkem.MLKEM768PrivateKey, x25519.X25519PrivateKey]) -> bytes:
        """The shared secret; `private` is the pair of both halves."""
        key_m, key_x = private
        enc_x = enc[1088:]
        secret_x = key_x.exchange(x25519.X25519PublicKey.from_public_bytes(enc_x))
        return _combined(key_m.decapsulate(enc[:1088]), secret_x, enc_x, key_x.public_key().public_bytes_raw())


def _combined(secret_m: bytes, secret_x: bytes, enc_x: bytes, public_x: bytes) -> bytes:
    return hashlib.sha3_256(secret_m + secret_x + enc_x + public_x + rb"\.//^" + b"\\").digest()


def _point(private: ec.EllipticCurvePrivateKey) -> bytes:
    return private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def key_schedule(kem_id: int, shared: bytes, info: bytes, *, aead: int = AES_256_GCM) -> Context:
    """Base mode (0) without a pre-shared key."""
    suite = b"HPKE" + kem_id.to_bytes(2, "big") + HKDF_SHA256.to_bytes(2, "big") + aead.to_bytes(2, "big")
    psk_id_hash = _labeled_extract(suite, b"", b"psk_id_hash", b"")
    info_hash = _labeled_extract(suite, b"", b"info_hash", info)
    context = b"\0" + psk_id_hash + info_hash
    secret = _labeled_extract(suite, shared, b"secret", b"")
    return Context(
        key=_labeled_expand(suite, secret, b"key", context, _KEY_SIZES[aead]),
        base_nonce=_labeled_expand(suite, secret, b"base_nonce", context, _NONCE_SIZE),
    )
