"""Batches of log lines as they are sealed (sealed_logs.py), and to whom, without the library that seals.

```
plaintext    = {0: bstr .size 16,               ; token, random, one for each boot
                1: uint,                        ; number of the batch, from 1
                2: [* line],                    ; at most 1024
                3: bool}                        ; the last batch of this boot
line         = [tstr, "stdout" / "stderr", uint, bool, bstr]    ; process, lines dropped before it, partial (as in link.py), bytes
```
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from runtime.protocol import cbor
from runtime.protocol import link_values as values
from runtime.protocol.cbor import Value
from runtime.protocol.errors import Malformed
from runtime.protocol.fields import Fields, octets, text, uint
from runtime.protocol.link_values import Stream

if TYPE_CHECKING:
    from runtime.protocol.sealing import Suite

TOKEN_SIZE = 16
BATCH_SIZE = 16 * 1024
"""Bytes of lines that make a batch full. Its last line may go beyond."""
PLAINTEXT_MAX = BATCH_SIZE + values.LINE_MAX + 10 * 1024


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
    """Who can read the lines: the public key, written "x25519:BASE64" or "x-wing:BASE64".

    Its methods load sealed_logs.py, and only they: in an enclave that seals no lines PID 1 loads no cryptography.
    """

    suite: "Suite"
    public: bytes

    @classmethod
    def parse(cls, written: str) -> "LogRecipient":
        """Raises ValueError for anything but a key that can be sealed to."""
        from runtime.protocol.sealed_logs import read_log_recipient

        return cls(*read_log_recipient(written))

    def __str__(self) -> str:
        from runtime.protocol.sealed_logs import write_log_recipient

        return write_log_recipient(self.suite, self.public)

    def seal(self, batch: Batch, *, boot_id: bytes, sequence: int) -> bytes:
        """The sealed bytes of a batch that travels under this sequence of this boot."""
        from runtime.protocol.sealed_logs import seal_batch

        return seal_batch(self.suite, self.public, batch, boot_id=boot_id, sequence=sequence)


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
