"""Log lines sealed to an operator's key, so that the parent, which carries and stores them, cannot read them.

Both ends: the enclave seals batches of lines, whoever holds the private key opens what the parent stored. HPKE base mode says nothing
about the sender: anyone who knows the public key, and the parent does, can seal. So every batch of a boot carries the same random token,
which the parent never sees, and a number: the parent can leave out, repeat, reorder or change batches, and each of these shows; it can
put nothing of its own between true ones. What it can do unnoticed is to hold back a whole boot, or to invent one.

```
sealed bytes = HPKE enc || ciphertext, with info = H(dCBOR(["log seal", boot_id, sequence]))    ; those of the link message, empty aad
plaintext    = {0: bstr .size 16,               ; token, random, one for each boot
                1: uint,                        ; number of the batch, from 1
                2: [* line],                    ; at most 1024
                3: bool}                        ; the last batch of this boot
line         = [tstr, "stdout" / "stderr", uint, bool, bstr]    ; process, lines dropped before it, partial (as in link.py), bytes
```
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric import mlkem, x25519

from runtime.protocol import cbor
from runtime.protocol import link_values as values
from runtime.protocol.cbor import Value
from runtime.protocol.digest import digest
from runtime.protocol.errors import Malformed
from runtime.protocol.fields import Fields, octets, text, uint
from runtime.protocol.link_values import Stream
from runtime.protocol.sealing import SealingKey, Suite, load_public_key, open_sealed, seal

TOKEN_SIZE = 16
BATCH_SIZE = 16 * 1024
"""Bytes of lines that make a batch full. Its last line may go beyond."""
PLAINTEXT_MAX = BATCH_SIZE + values.LINE_MAX + 10 * 1024

_SUITES = {"x25519": Suite.X25519, "x-wing": Suite.X_WING}
_NAMES = {suite: name for name, suite in _SUITES.items()}
_PRIVATE = "-private"
_X25519_SIZE = 32
_PUBLIC_SIZES = {Suite.X25519: _X25519_SIZE, Suite.X_WING: 1184 + _X25519_SIZE}
SEED_SIZES = {Suite.X25519: _X25519_SIZE, Suite.X_WING: 64 + _X25519_SIZE}
_A_KEY = x25519.X25519PrivateKey.from_private_bytes(b"\x40" * _X25519_SIZE)
"""Nobody's: only to see whether a public key gives a secret at all (RFC 9180 section 7.1.4), without drawing anything random."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """One line: `dropped` lines of that stream are missing before it; `is_partial`: no line end followed it."""

    process: str
    stream: Stream
    data: bytes = field(repr=False)
    dropped: int = 0
    is_partial: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Lines in their order, with what tells a true and whole series of batches from any other."""

    token: bytes = field(repr=False)
    number: int
    lines: tuple[LogLine, ...]
    is_last: bool = False

    def encode(self) -> bytes:
        """The plaintext of a seal."""
        lines = [[line.process, line.stream, line.dropped, line.is_partial, line.data] for line in self.lines]
        return cbor.encode({0: self.token, 1: self.number, 2: lines, 3: self.is_last})

    @classmethod
    def decode(cls, plaintext: bytes) -> "Batch":
        """Strict. Raises `Malformed`."""
        fields = Fields(cbor.decode(plaintext, max_size=PLAINTEXT_MAX), "batch")
        batch = cls(
            token=fields.octets(0, size=TOKEN_SIZE),
            number=values.sequence(fields.take(1), "batch.1"),
            lines=fields.array(2, _line, most=values.SEALED_LINES_MAX),
            is_last=_boolean(fields.take(3), "batch.3"),
        )
        fields.finish()
        return batch


@dataclass(frozen=True, slots=True)
class LogRecipient:
    """Who can read the lines: the public key, written "x25519:BASE64" or "x-wing:BASE64"."""

    suite: Suite
    public: bytes

    @classmethod
    def parse(cls, written: str) -> "LogRecipient":
        """Raises ValueError for anything but a key that can be sealed to."""
        suite, raw = _written(written, _PUBLIC_SIZES)
        try:
            load_public_key(suite, raw)
            _A_KEY.exchange(x25519.X25519PublicKey.from_public_bytes(raw[-_X25519_SIZE:]))  # either suite ends in this one
        except Malformed as error:
            raise ValueError(error.detail) from None
        except ValueError:
            raise ValueError("must be a key that gives a secret: this one does not") from None
        return cls(suite, raw)

    def __str__(self) -> str:
        return f"{_NAMES[self.suite]}:{base64.b64encode(self.public).decode()}"

    def seal(self, batch: Batch, *, boot_id: bytes, sequence: int) -> bytes:
        """The sealed bytes of a batch that travels under this sequence of this boot."""
        return seal(self.suite, self.public, batch.encode(), info=_info(boot_id, sequence))


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


def _line(value: Value, what: str) -> LogLine:
    if type(value) is not list or len(value) != 5:
        raise Malformed(f"{what} must be an array of 5")
    process, stream, dropped, is_partial, data = value
    return LogLine(
        process=text(process, f"{what}'s process", least=1, most=64),
        stream=values.one_of(stream, f"{what}'s stream", values.STREAMS),
        dropped=uint(dropped, f"{what}'s dropped"),
        is_partial=_boolean(is_partial, f"{what}'s partial"),
        data=octets(data, f"{what}'s bytes", most=values.LINE_MAX),
    )


def _boolean(value: Value, what: str) -> bool:
    if type(value) is not bool:
        raise Malformed(f"{what} must be true or false")
    return value
