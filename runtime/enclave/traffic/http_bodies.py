"""Bodies of HTTP/1.1 requests, decoded strictly and in constant memory (RFC 9112 sections 6 and 7). Pure.

A body takes what belongs to it off the front of a buffer and leaves the rest, which is the next request, alone.
"""

import re
from typing import Protocol

from runtime.enclave.traffic.http_heads import RequestHead
from runtime.enclave.traffic.refusal import Refusal

_LINE_MAX = 256
_TRAILER_MAX = 8 * 1024
_TOKEN = rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+"
_EXTENSION = (
    rb"[ \t]*;[ \t]*"
    + _TOKEN
    + rb"(?:[ \t]*=[ \t]*(?:"
    + _TOKEN
    + rb"|\"(?:[^\"\\\x00-\x08\x0a-\x1f\x7f]|\\[\t -~\x80-\xff])*\"))?"
)
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:" + _EXTENSION + rb")*")
_TRAILER = re.compile(_TOKEN + rb":[^\x00-\x08\x0a-\x1f\x7f]*")


class Body(Protocol):
    """What `body_of` gives."""

    complete: bool

    def take(self, buffer: bytearray) -> bytes:
        """Removes the body's bytes from the front of `buffer` and returns the content among them; empty when more are needed.

        Raises `Refusal` for bytes that no body has.
        """
        ...


def body_of(head: RequestHead) -> Body | None:
    """The reader of the body that follows `head`, None when nothing does."""
    if not head.has_body:
        return None
    return ChunkedBody() if head.chunked else LengthBody(head.length or 0)


class LengthBody:
    """A body of a known number of bytes, `left` of them to come."""

    __slots__ = ("complete", "left")

    def __init__(self, length: int) -> None:
        self.left = length
        self.complete = length == 0

    def take(self, buffer: bytearray) -> bytes:
        """See `Body`."""
        data = bytes(buffer[: self.left])
        del buffer[: len(data)]
        self.left -= len(data)
        self.complete = self.left == 0
        return data

    def skip(self, size: int) -> int:
        """How many of the next `size` bytes are the body's, which the caller takes."""
        mine = min(size, self.left)
        self.left -= mine
        self.complete = self.left == 0
        return mine


class ChunkedBody:
    """A chunked body. Extensions are read and dropped; so are trailer fields, as RFC 9110 section 6.5.1 allows."""

    __slots__ = ("_at_data_end", "_in_trailer", "_left", "_trailer_size", "complete")

    def __init__(self) -> None:
        self._left = 0
        self._at_data_end = False
        self._in_trailer = False
        self._trailer_size = 0
        self.complete = False

    def take(self, buffer: bytearray) -> bytes:
        """See `Body`. Chunks that have arrived together come out as one."""
        parts: list[bytes] = []
        while not self.complete:
            if self._left:
                part = bytes(buffer[: self._left])
                if not part:
                    break
                del buffer[: len(part)]
                parts.append(part)
                self._left -= len(part)
                self._at_data_end = self._left == 0
            elif self._at_data_end:
                if not b"\r\n".startswith(buffer[:2]):
                    raise Refusal(400, "bad_chunk", "a chunk is longer than its size")
                if len(buffer) < 2:
                    break
                del buffer[:2]
                self._at_data_end = False
            elif not self._take_line(buffer):
                break
        return b"".join(parts)

    def _take_line(self, buffer: bytearray) -> bool:
        """Reads a chunk's size line or a trailer line; False when it is not all there."""
        most = _TRAILER_MAX - self._trailer_size if self._in_trailer else _LINE_MAX
        end = buffer.find(b"\n", 0, most)
        if end < 0:
            if len(buffer) >= most:
                raise Refusal(400, "bad_chunk", "a line of the chunked coding is too long")
            return False
        if end == 0 or buffer[end - 1] != 0x0D:
            raise Refusal(400, "bad_chunk", "a bare line feed in the chunked coding")
        line = bytes(buffer[: end - 1])
        del buffer[: end + 1]
        if self._in_trailer:
            self._trailer_size += end + 1
            self.complete = not line
            if line and not _TRAILER.fullmatch(line):
                raise Refusal(400, "bad_trailer", "a trailer field is not name: value")
            return True
        match = _CHUNK_LINE.fullmatch(line)
        if match is None:
            raise Refusal(400, "bad_chunk", "a chunk's size is not 1 to 15 hexadecimal digits with well-formed extensions")
        self._left = int(match[1], 16)
        self._in_trailer = self._left == 0
        return True
