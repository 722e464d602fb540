"""One connection between a port of the guest and a unix socket of this machine: credit both ways, half-closes, resets.

The guest is hostile: it may send more than there is room for, forge its counters, and never take what it asked for. It costs itself
its connection.
"""

import select
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

import trio

from runtime.simulator.vm.vsock_packet import NO_RECEIVE, NO_SEND, Operation

ROOM = 1 << 18
"""Bytes of the guest's that are kept for a reader who is slow."""

_CHUNK = 1 << 16
_WRAP = 0xFFFFFFFF

Send = Callable[[Operation, int, bytes], Awaitable[None]]
"""Sends one packet of this connection: what, flags, data; when there is room for it in the guest's queue."""


class VsockStream:
    """`run` carries the connection to its end; `take` is given what the guest says of it. `forwarded` goes into each header."""

    def __init__(self, stream: trio.SocketStream, send: Send) -> None:
        self.forwarded = 0
        self._stream = stream
        self._send = send
        self._told = 0
        self._sent = 0
        self._guest_room = 0
        self._guest_forwarded = 0
        self._buffer = bytearray()
        self._guest_flags = 0
        self._is_open = False
        self._changed = trio.Condition()
        self._scope = trio.CancelScope()

    async def run(self) -> None:
        """Until both have ended. The guest is told of the end, unless it was the guest that reset."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._to_guest)
                    await self._from_guest()
                    nursery.cancel_scope.cancel()
        finally:
            await trio.aclose_forcefully(self._stream)
        if not self._scope.cancelled_caught:
            await self._send(Operation.RESET, 0, b"")

    def reset(self) -> None:
        """The guest has reset it, or has gone."""
        self._scope.cancel()

    def has_room_for(self, size: int) -> bool:
        """Whether the guest keeps to its credit with so many bytes more."""
        return len(self._buffer) + size <= ROOM

    def mark_told(self) -> None:
        """A header with `forwarded` is on its way."""
        self._told = self.forwarded

    async def take(self, operation: int, flags: int, room: int, forwarded: int, data: bytes) -> None:
        """A packet from the guest, other than a request or a reset."""
        async with self._changed:
            self._guest_room, self._guest_forwarded = room, forwarded
            match operation:
                case Operation.RESPONSE:
                    self._is_open = True
                case Operation.DATA:
                    self._buffer += data
                case Operation.SHUTDOWN:
                    self._guest_flags |= flags & (NO_RECEIVE | NO_SEND)
                    if flags & NO_RECEIVE:
                        with suppress(OSError):
                            self._stream.socket.shutdown(socket.SHUT_RD)  # who still sends is told so by the kernel
            self._changed.notify_all()
        if operation == Operation.CREDIT_REQUEST:
            await self._send(Operation.CREDIT_UPDATE, 0, b"")

    def accept(self, room: int, forwarded: int) -> None:
        """The guest asked for it, with this credit, and it stands."""
        self._is_open, self._guest_room, self._guest_forwarded = True, room, forwarded

    @property
    def _credit(self) -> int:
        """Bytes that the guest has room for. What it says cannot make that more than its room."""
        on_the_way = (self._sent - self._guest_forwarded) & _WRAP
        return max(0, self._guest_room - on_the_way)

    async def _from_guest(self) -> None:
        """Until the guest will neither send nor receive, and all that it sent has gone."""
        is_deaf = False
        while True:
            async with self._changed:
                while not self._buffer and not self._guest_flags & NO_SEND:
                    await self._changed.wait()
                part = bytes(self._buffer[:_CHUNK])
            if not part:
                break
            if not is_deaf:
                try:
                    await self._stream.send_all(part)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    is_deaf = True  # as with AF_VSOCK, what the guest still sends goes nowhere
            async with self._changed:
                del self._buffer[: len(part)]
            self.forwarded = (self.forwarded + len(part)) & _WRAP
            if (self.forwarded - self._told) & _WRAP > ROOM // 4:
                await self._send(Operation.CREDIT_UPDATE, 0, b"")
        if not is_deaf:
            with suppress(OSError):
                self._stream.socket.shutdown(socket.SHUT_WR)
        async with self._changed:
            while not self._guest_flags & NO_RECEIVE:
                await self._changed.wait()

    async def _to_guest(self) -> None:
        """Until this machine's end has closed; then the guest is told, once of the half and once of the whole."""
        while True:
            async with self._changed:
                while not self._is_open or not self._credit:
                    await self._changed.wait()
                credit = self._credit
            try:
                data = await self._stream.receive_some(min(credit, _CHUNK))
            except trio.BrokenResourceError:
                break  # closed with something unread
            if self._guest_flags & NO_RECEIVE:
                return
            if not data:
                await self._send(Operation.SHUTDOWN, NO_SEND, b"")
                await _hung_up(self._stream)
                break
            self._sent = (self._sent + len(data)) & _WRAP
            await self._send(Operation.DATA, 0, bytes(data))
        await self._send(Operation.SHUTDOWN, NO_SEND | NO_RECEIVE, b"")


async def _hung_up(stream: trio.SocketStream) -> None:
    """Until the other end is closed both ways. An epoll that asks for nothing becomes readable by that alone."""
    with select.epoll() as watch:
        watch.register(stream.socket.fileno(), 0)
        await trio.lowlevel.wait_readable(watch.fileno())
