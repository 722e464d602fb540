"""The socket that stands for /dev/nsm, and its end inside the enclave. Loads no more than the real device does.

On the socket each request is one frame, 4 bytes of length (big-endian) and its CBOR; so is each response, or it is 4 bytes with the
top bit set and the driver's errno below it.
"""

import errno
import os
import select
from contextlib import suppress
from dataclasses import dataclass

import trio

from runtime.protocol.nsm import REQUEST_MAX, RESPONSE_MAX

_READ_SIZE = 4096
_ERRNO = 1 << 31


class SimulatedDevice(trio.abc.AsyncResource):
    """The device that `serve_nsm` serves at the socket `path`, as an `NsmDevice`: what the driver is to the real one.

    Connects when it is first used and again after the connection was lost; the call that lost it fails with EIO.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._frames: Frames | None = None
        self._is_owed = False

    @property
    def is_occupied(self) -> bool:
        """Whether the answer to a caller that has gone is still to come."""
        return self._frames is not None and self._is_owed and not self._frames.is_readable

    async def exchange(self, request: bytes) -> bytes:
        """See `NsmDevice`."""
        if len(request) > REQUEST_MAX:
            raise _os_error(errno.EMSGSIZE)
        if self._frames and self._is_owed:
            with suppress(OSError):
                await self._answer(self._frames)
        if self._frames is None:
            self._frames = Frames(await trio.open_unix_socket(self._path))
        self._is_owed = True
        try:
            await self._frames.send(request)
        except trio.Cancelled:
            self._drop()  # a part of the frame may be on its way
            raise
        return await self._answer(self._frames)

    async def aclose(self) -> None:
        """Closes the connection."""
        self._drop()
        await trio.lowlevel.checkpoint()

    async def _answer(self, frames: "Frames") -> bytes:
        received = await frames.receive(RESPONSE_MAX)
        self._is_owed = False
        if received is None:
            self._drop()
            raise _os_error(errno.EIO)
        if received.failure:
            raise _os_error(received.failure)
        return received.body

    def _drop(self) -> None:
        if self._frames:
            self._frames.close()
        self._frames = None
        self._is_owed = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frame:
    body: bytes
    failure: int | None


class Frames:
    """The frames of one connection, in both directions. What came of a frame before its reader was cancelled is kept for the next."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._buffer = bytearray()

    @property
    def is_readable(self) -> bool:
        """Whether bytes, or the end, wait in the socket."""
        poll = select.poll()
        poll.register(self._stream.socket.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    async def receive(self, most: int) -> _Frame | None:
        """The next frame; None when the connection has ended, or makes no sense: a body over `most` bytes."""
        while True:
            end = self._end()
            if end is not None and end > 4 + most:
                return None
            if end is not None and end <= len(self._buffer):
                break
            try:
                data = await self._stream.receive_some(_READ_SIZE)
            except trio.BrokenResourceError:
                return None
            if not data:
                return None
            self._buffer += data
        head, body = int.from_bytes(self._buffer[:4], "big"), bytes(self._buffer[4:end])
        del self._buffer[:end]
        return _Frame(body=body, failure=head & ~_ERRNO if head & _ERRNO else None)

    async def send(self, body: bytes, *, failure: int | None = None) -> None:
        """Sends one frame. That the connection has ended shows in the next `receive`."""
        head = _ERRNO | failure if failure else len(body)
        with suppress(trio.BrokenResourceError):
            await self._stream.send_all(head.to_bytes(4, "big") + body)

    def close(self) -> None:
        """Closes the socket."""
        self._stream.socket.close()

    def _end(self) -> int | None:
        """Where the first frame in the buffer ends, None before its head is there."""
        if len(self._buffer) < 4:
            return None
        head = int.from_bytes(self._buffer[:4], "big")
        return 4 if head & _ERRNO else 4 + head


def _os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
