"""Log lines sealed to an operator's key, so that the parent, which carries and stores them, cannot read them.

Both ends: the enclave seals batches of lines, whoever holds the private key opens what the parent stored. HPKE base mode says nothing
about the sender: anyone who knows the public key, and the parent does, can seal. So every batch of a boot carries the same random token,
which the parent never sees, and a number: the parent can leave out, repeat, reorder or change batches, and each of these shows; it can
put nothing of its own between true ones. What it can do unnoticed is to hold back a whole boot, or to invent one.

```
sealed bytes = HPKE enc || ciphertext, with info = H(dCBOR(["log seal", boot_id, sequence]))    ; those of the link message, empty aad
```
The plaintext is in log_batch.py.
"""

import base64
import binascii
from collections.abc import Mapping

from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric import mlkem, x25519

from runtime.protocol import cbor
from runtime.protocol.digest import digest
from runtime.protocol.errors import Malformed
from runtime.protocol.log_batch import BATCH_SIZE, Batch, LogLine, LogRecipient
from runtime.protocol.sealing import SealingKey, Suite, load_public_key, open_sealed, seal

__all__ = ["BATCH_SIZE", "Batch", "LogLine", "LogRecipient"]
"""What is sealed and to whom, of log_batch.py; the rest is below."""

_SUITES = {"x25519": Suite.X25519, "x-wing": Suite.X_WING}
_NAMES = {suite: name for name, suite in _SUITES.items()}
_PRIVATE = "-private"
_X25519_SIZE = 32
_PUBLIC_SIZES = {Suite.X25519: _X25519_SIZE, Suite.X_WING: 1184 + _X25519_SIZE}
SEED_SIZES = {Suite.X25519: _X25519_SIZE, Suite.X_WING: 64 + _X25519_SIZE}
_A_KEY = x25519.X25519PrivateKey.from_private_bytes(b"\x40" * _X25519_SIZE)
"""Nobody's: only to see whether a public key gives a secret at all (RFC 9180 section 7.1.4), without drawing anything random."""


def read_log_recipient(written: str) -> tuple[Suite, bytes]:
    """The public key of `LogRecipient`. Raises ValueError for anything but a key that can be sealed to."""
    suite, raw = _written(written, _PUBLIC_SIZES)
    try:
        load_public_key(suite, raw)
        _A_KEY.exchange(x25519.X25519PublicKey.from_public_bytes(raw[-_X25519_SIZE:]))  # either suite ends in this one
    except Malformed as error:
        raise ValueError(error.detail) from None
    except ValueError:
        raise ValueError("must be a key that gives a secret: this one does not") from None
    return suite, raw


def write_log_recipient(suite: Suite, public: bytes) -> str:
    """The reverse of `read_log_recipient`."""
    return f"{_NAMES[suite]}:{base64.b64encode(public).decode()}"


def seal_batch(suite: Suite, public: bytes, batch: Batch, *, boot_id: bytes, sequence: int) -> bytes:
    """The bytes of a link message for a batch that travels under this sequence of this boot."""
    return seal(suite, public, batch.encode(), info=_info(boot_id, sequence))


def log_key(suite: Suite, seed: bytes) -> SealingKey:
    """The operator's key pair that these `SEED_SIZES[suite]` random bytes make; they are the private key."""
    if suite is Suite.X25519:
        private = x25519.X25519PrivateKey.from_private_bytes(seed)
        return SealingKey(suite=suite, private=private, public=private.public_key().public_bytes_raw())
    post_quantum = mlkem.MLKEM768PrivateKey.from_seed_bytes(seed[:-_X25519_SIZE])
    classic = x25519.X25519PrivateKey.from_private_bytes(seed[-_X25519_SIZE:])
    public = post_quantum.public_key().public_bytes_raw() + classic.public_key().public_bytes_raw()
    return SealingKey(suite=suite, private=hpke.MLKEM768X25519PrivateKey(post_quantum, classic), public=public)


def write_log_key(suite: Suite, seed: bytes) -> str:
    """What the operator's key file holds: "x25519-private:BASE64" or "x-wing-private:BASE64"."""
    return f"{_NAMES[suite]}{_PRIVATE}:{base64.b64encode(seed).decode()}"


def read_log_key(written: str) -> SealingKey:
    """The reverse of `write_log_key`. Raises ValueError."""
    return log_key(*_written(written.strip(), SEED_SIZES, _PRIVATE))


def open_batch(key: SealingKey, sealed: bytes, *, boot_id: bytes, sequence: int) -> Batch:
    """The batch in the bytes of a link message. Raises `Refused` with "seal_broken" for other bytes or another place, or `Malformed`."""
    return Batch.decode(open_sealed(key, sealed, info=_info(boot_id, sequence)))


def _info(boot_id: bytes, sequence: int) -> bytes:
    return digest(cbor.encode(["log seal", boot_id, sequence]))


def _written(written: str, sizes: Mapping[Suite, int], suffix: str = "") -> tuple[Suite, bytes]:
    kind, _, encoded = written.partition(":")
    suite = next((suite for name, suite in _SUITES.items() if kind == name + suffix), None)
    try:
        raw = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if suite is None or len(raw) != sizes[suite]:
        choices = " or ".join(f'"{_NAMES[suite]}{suffix}:" and the base64 of {size} bytes' for suite, size in sizes.items())
        raise ValueError(f"must be {choices}")
    return suite, raw
