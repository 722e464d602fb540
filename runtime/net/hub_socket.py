"""Plain sockets on a hub: connecting, and what a work reads and sends before it relays. All of them are non-blocking."""

import errno
import fcntl
import os
import socket
import struct
import sys
import termios
from contextlib import suppress
from functools import lru_cache
from ipaddress import ip_address
from typing import Any

import trio

from runtime.net.endpoint import Endpoint, Tcp, Unix, Vsock
from runtime.net.endpoint import connect as trio_connect
from runtime.net.hub import IN, OUT, Expired, Hub, Source, Work
from runtime.net.openssl import WANT_READ, WANT_WRITE, Buffer
from runtime.protocol.errors import Malformed

TCP_FAMILIES = frozenset({socket.AF_INET, socket.AF_INET6})

_FULL_PAUSE = 0.005  # seconds, doubled each time
_FULL_PAUSE_MOST = 0.1


class Plain:
    """A stream socket without TLS and its source on the hub; owns both. `peer` is the address that it was accepted from."""

    __slots__ = ("fd", "peer", "socket", "source")
    is_at_end = False  # nothing is read ahead of its socket

    def __init__(self, hub: Hub, connected: socket.socket, peer: Any = None) -> None:
        self.socket = connected
        self.peer = peer
        self.fd = connected.fileno()
        self.source = Source(hub, self.fd)

    def read(self, buffer: Buffer) -> int:
        """Bytes read, or `ENDED`, `WANT_READ`. Raises OSError."""
        try:
            return self.socket.recv_into(buffer.view)
        except BlockingIOError:
            return WANT_READ

    def write_view(self, data: memoryview) -> int:
        """Bytes taken, or `WANT_WRITE`. Raises OSError."""
        try:
            return self.socket.send(data)
        except BlockingIOError:
            return WANT_WRITE

    def end(self) -> int:
        """Ends the sending direction; 1. Raises OSError."""
        self.socket.shutdown(socket.SHUT_WR)
        return 1

    def abort(self) -> None:
        """Closes so that the peer sees a reset."""
        with suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        """Closes it at once; again does nothing."""
        self.source.drop()
        self.socket.close()


def is_tcp(address: Any) -> bool:
    """Whether it is an address of IPv4 or IPv6, as sockets have them."""
    return isinstance(address, tuple) and isinstance(address[0], str)


async def connect(work: Work, endpoint: Endpoint) -> Plain:
    """A connection to `endpoint`, which the caller owns. Raises OSError; `Expired` at the deadline of `work`, which is the caller's.

    A name is resolved, and its addresses are tried, by trio (net/endpoint.py); addresses, paths and CIDs are connected to right here.
    """
    match endpoint:
        case Tcp(host, port):
            version = _version(host)
            if version is None:
                return await _connect_by_name(work, endpoint)
            return await _connect(work, socket.AF_INET6 if version == 6 else socket.AF_INET, (host, port))
        case Unix(path):
            return await _connect(work, socket.AF_UNIX, path)
        case Vsock(cid, port):
            return await _connect(work, socket.AF_VSOCK, (cid, port))
        case _:
            raise TypeError(f"{endpoint!r} is no endpoint")


async def receive_exactly(work: Work, plain: Plain, size: int) -> bytes:
    """The next `size` bytes; those behind them stay in the kernel. Raises OSError, `Expired`, `Malformed` ("truncated") at an end."""
    received = b""
    while True:
        try:
            data = plain.socket.recv(size - len(received))
        except BlockingIOError:
            await work.wait(plain.source, IN)
            continue
        if not data:
            raise Malformed(f"the stream ended after {len(received)} of {size} bytes", "truncated")
        received += data
        if len(received) == size:
            return received


async def send_all(work: Work, plain: Plain, data: bytes) -> None:
    """Sends all of `data`. Raises OSError, `Expired`."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[plain.socket.send(rest) :]
        except BlockingIOError:
            await work.wait(plain.source, OUT)


def unsent_bytes(fd: int) -> int:
    """What a socket has taken and its peer has not (tcp(7), unix(7): SIOCOUTQ); 0 where the kernel does not count."""
    try:
        return int.from_bytes(fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except OSError:
        return 0


def detached(stream: trio.SocketStream | trio.SocketListener) -> socket.socket:
    """The socket of a trio stream or listener, which is trio's no more."""
    taken = socket.socket(fileno=stream.socket.detach())
    taken.setblocking(False)
    return taken


async def _connect(work: Work, family: int, address: str | tuple[str | int, int]) -> Plain:
    connecting = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    plain = Plain(work.hub, connecting)
    try:
        if family in TCP_FAMILIES:
            connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pause = _FULL_PAUSE
        while (error := connecting.connect_ex(address)) == errno.EAGAIN:  # a unix listener whose queue is full
            await _pause(work, pause)
            pause = min(2 * pause, _FULL_PAUSE_MOST)
        if error == errno.EINPROGRESS:
            events = await work.wait(plain.source, OUT)
            error = 0 if events == OUT else connecting.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            plain.source.arm(IN)  # else it would be ready to send all the time until somebody waits for something else
        if error:
            raise OSError(error, os.strerror(error))
    except BaseException:
        plain.close()
        raise
    return plain


async def _pause(work: Work, seconds: float) -> None:
    """Sleeps within the deadline that the work has."""
    until, now = work.deadline, work.hub.now
    await work.sleep(min(seconds, until - now))
    if now + seconds >= until:
        raise Expired
    work.deadline = until


async def _connect_by_name(work: Work, endpoint: Endpoint) -> Plain:
    async def attempt() -> socket.socket | OSError:
        try:
            return detached(await trio_connect(endpoint))
        except OSError as error:
            return error

    result = await work.call(attempt)
    if isinstance(result, OSError):
        raise result
    return Plain(work.hub, result)


@lru_cache(maxsize=256)
def _version(host: str) -> int | None:
    try:
        return ip_address(host).version
    except ValueError:
        return None
