"""The client's side of one HTTP connection: bytes in order, read as far as a request needs, written under a deadline."""

from contextlib import AbstractContextManager

import trio

from runtime.enclave.traffic.http_heads import find_head
from runtime.enclave.traffic.refusal import Refusal
from runtime.net.serve import CONNECTION_ERRORS

READ = 64 * 1024
_CLOSE_SECONDS = 2.0
_CLOSE_BYTES = 1 << 20


class ClientGone(Exception):
    """The client cannot be answered any more: it went, or it does not read."""


class Downstream:
    """Reads and writes one stream. `buffer` holds what was read and not yet taken, of this request and of those behind it."""

    def __init__(self, stream: trio.abc.HalfCloseableStream, *, send_timeout: float) -> None:
        self._stream = stream
        self._send_timeout = send_timeout
        self._ended = False
        self.buffer = bytearray()

    @property
    def has_ended(self) -> bool:
        """Whether the client has ended its side."""
        return self._ended

    async def receive(self) -> bool:
        """Adds what arrives to the buffer; False when the client has ended its side. Raises `ClientGone`."""
        if self._ended:
            return False
        try:
            data = await self._stream.receive_some(READ)
        except CONNECTION_ERRORS as error:
            raise ClientGone(str(error)) from None
        self.buffer += data
        self._ended = not data
        return not self._ended

    async def receive_head(self, *, idle: AbstractContextManager[trio.CancelScope], timeout: float, size_max: int) -> bytes | None:
        """The next request's head; None when the client ended, or sent nothing as long as `idle` lasts, between two requests.

        `timeout` is in seconds for the whole head from its first byte on. Raises `Refusal` and `ClientGone`.
        """
        with idle as waiting:
            if not self.buffer and not await self.receive():
                return None
        if waiting.cancelled_caught:
            return None
        skipped = False
        seen = 0
        with trio.move_on_after(timeout):
            while True:
                # One empty line before a request is forgiven (RFC 9112 section 2.2): old clients end a body with it.
                if not skipped and len(self.buffer) >= 2 and self.buffer.startswith(b"\r\n"):
                    del self.buffer[:2]
                    skipped = True
                if self.buffer != b"\r" and (end := find_head(self.buffer, seen, size_max=size_max)):
                    head = bytes(self.buffer[:end])
                    del self.buffer[:end]
                    return head
                seen = len(self.buffer)
                if not await self.receive():
                    if not self.buffer:
                        return None
                    raise Refusal(400, "incomplete_head", "the connection ended within the head")
        if not self.buffer:
            return None
        raise Refusal(408, "head_timeout", f"no complete head within {timeout:g} seconds")

    async def send(self, data: bytes) -> None:
        """Sends all of `data`. Raises `ClientGone`, also when the client does not read it in time."""
        try:
            with trio.fail_after(self._send_timeout):
                await self._stream.send_all(data)
        except CONNECTION_ERRORS as error:
            raise ClientGone(str(error)) from None

    async def finish(self) -> None:
        """Ends our side and reads on for a moment: closing over unread bytes would reset the connection. Raises `ClientGone`."""
        with trio.move_on_after(_CLOSE_SECONDS):
            try:
                await self._stream.send_eof()
            except CONNECTION_ERRORS as error:
                raise ClientGone(str(error)) from None
            read = 0
            while read < _CLOSE_BYTES and await self.receive():
                read += len(self.buffer)
                self.buffer.clear()
