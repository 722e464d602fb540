"""Socket pairs and a wire whose far end is a handler, for tests that drive both ends of a link."""

import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

from runtime.net.serve import CONNECTION_ERRORS


def socket_pair(*, send_buffer: int | None = None) -> tuple[trio.SocketStream, trio.SocketStream]:
    """Two connected streams; `send_buffer` makes both of them clog soon."""
    ends = socket.socketpair()
    for end in ends:
        if send_buffer is not None:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    left, right = (trio.SocketStream(trio.socket.from_stdlib_socket(end)) for end in ends)
    return left, right


def open_descriptors() -> int:
    """How many descriptors this process holds."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


class Wire:
    """`connect` gives a stream whose other end runs `handler`, which a test may change between connections."""

    def __init__(self, nursery: trio.Nursery, handler: Callable[[trio.SocketStream], Awaitable[None]]) -> None:
        self.handler = handler
        self.is_down = False
        self.attempts = 0
        self.connections = 0
        self.ended = 0
        self.errors: list[BaseException] = []
        self.send_buffer: int | None = None
        self._nursery = nursery

    async def connect(self) -> trio.SocketStream:
        await trio.lowlevel.checkpoint()
        self.attempts += 1
        if self.is_down:
            raise ConnectionRefusedError("nobody listens")
        near, far = socket_pair(send_buffer=self.send_buffer)
        self.connections += 1
        self._nursery.start_soon(self._run, far, self.handler)
        return near

    async def _run(self, stream: trio.SocketStream, handler: Callable[[trio.SocketStream], Awaitable[None]]) -> None:
        try:
            async with stream:
                await handler(stream)
        except* CONNECTION_ERRORS as group:
            self.errors += group.exceptions
        finally:
            self.ended += 1
