"""Connecting and receiving on a hub: what a work does before it relays. Sockets here are non-blocking."""

import errno
import os
import socket
from ipaddress import ip_address

import trio

from runtime.net.endpoint import Endpoint, Tcp, Unix, Vsock
from runtime.net.endpoint import connect as trio_connect
from runtime.net.hub import IN, OUT, Expired, Source, Work
from runtime.protocol.errors import Malformed

_FULL_PAUSE = 0.005  # seconds, doubled each time
_FULL_PAUSE_MOST = 0.1


async def connect(work: Work, endpoint: Endpoint) -> socket.socket:
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


async def receive_exactly(work: Work, source: Source, connected: socket.socket, size: int) -> bytes:
    """The next `size` bytes; those behind them stay in the kernel. Raises OSError, `Expired`, `Malformed` ("truncated") at an end."""
    received = b""
    while True:
        try:
            data = connected.recv(size - len(received))
        except BlockingIOError:
            await work.wait(source, IN)
            continue
        if not data:
            raise Malformed(f"the stream ended after {len(received)} of {size} bytes", "truncated")
        received += data
        if len(received) == size:
            return received


async def send_all(work: Work, source: Source, connected: socket.socket, data: bytes) -> None:
    """Sends all of `data`. Raises OSError, `Expired`."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[connected.send(rest) :]
        except BlockingIOError:
            await work.wait(source, OUT)


def detached(stream: trio.SocketStream | trio.SocketListener) -> socket.socket:
    """The socket of a trio stream or listener, which is trio's no more."""
    taken = socket.socket(fileno=stream.socket.detach())
    taken.setblocking(False)
    return taken


async def _connect(work: Work, family: int, address: str | tuple[str | int, int]) -> socket.socket:
    connecting = socket.socket(family, socket.SOCK_STREAM)
    source = Source(work.hub, connecting.fileno())
    try:
        connecting.setblocking(False)
        if family in {socket.AF_INET, socket.AF_INET6}:
            connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pause = _FULL_PAUSE
        while (error := connecting.connect_ex(address)) == errno.EAGAIN:  # a unix listener whose queue is full
            await _pause(work, pause)
            pause = min(2 * pause, _FULL_PAUSE_MOST)
        if error == errno.EINPROGRESS:
            await work.wait(source, OUT)
            error = connecting.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))
    except BaseException:
        source.close()
        connecting.close()
        raise
    source.close()
    return connecting


async def _pause(work: Work, seconds: float) -> None:
    """Sleeps within the deadline that the work has."""
    until, now = work.deadline, work.hub.now
    await work.sleep(min(seconds, until - now))
    if now + seconds >= until:
        raise Expired
    work.deadline = until


async def _connect_by_name(work: Work, endpoint: Endpoint) -> socket.socket:
    async def attempt() -> socket.socket | OSError:
        try:
            return detached(await trio_connect(endpoint))
        except OSError as error:
            return error

    result = await work.call(attempt)
    if isinstance(result, OSError):
        raise result
    return result


def _version(host: str) -> int | None:
    try:
        return ip_address(host).version
    except ValueError:
        return None
