"""Length-prefixed frames of the parent link: 4 bytes big-endian, then that many bytes of deterministic CBOR."""

from runtime.protocol import cbor
from runtime.protocol.cbor import Value
from runtime.protocol.errors import LocalProtocolError, Malformed

FRAME_MAX = 64 * 1024
"""Bytes of a frame's body."""


def encode_frame(value: object, *, limit: int = FRAME_MAX) -> bytes:
    """One frame. A body over `limit` bytes is our bug: `LocalProtocolError`."""
    body = cbor.encode(value)
    if len(body) > limit:
        raise LocalProtocolError(f"a frame of {len(body)} bytes")
    return len(body).to_bytes(4, "big") + body


class FrameDecoder:
    """Pull style: `receive_data` what arrived, then `next_frame` until it gives None. Holds at most one frame and one read."""

    def __init__(self, *, limit: int = FRAME_MAX) -> None:
        self._limit = limit
        self._buffer = bytearray()

    def receive_data(self, data: bytes) -> None:
        """Adds bytes of the stream, of any length."""
        self._buffer += data

    def next_frame(self) -> tuple[Value] | None:
        """(value,) of the next whole frame, or None when more bytes are needed. Raises `Malformed`, after which the stream is lost."""
        if len(self._buffer) < 4:
            return None
        size = int.from_bytes(self._buffer[:4], "big")
        if size > self._limit:
            raise Malformed(f"a frame of {size} bytes, {self._limit} allowed", "too_large")
        if len(self._buffer) < 4 + size:
            return None
        body = bytes(self._buffer[4 : 4 + size])
        del self._buffer[: 4 + size]
        return (cbor.decode(body, max_size=self._limit),)

    @property
    def is_empty(self) -> bool:
        """Whether the stream may end here: no part of a frame is waiting."""
        return not self._buffer

    def leftover(self) -> bytes:
        """The bytes behind the last frame, for a stream that turns raw after it; the decoder is empty then."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest
