"""Where something listens or is reached: `vsock:CID:PORT`, `unix:PATH`, `tcp:HOST:PORT` (an IPv6 address in brackets).

The notation is strict, so that a typing error in a measured config is an error and not another address: decimal numbers without
signs or leading zeros, no white space, an all-numeric host must be a whole IPv4 address.
"""

import errno
import os
import re
import socket
import stat
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Self

import trio

ANY_CID = 0xFFFFFFFF
"""VMADDR_CID_ANY: listen on whatever CID this machine has. As a port (VMADDR_PORT_ANY): let the kernel choose. See vsock(7)."""

PARENT_CID = 3
"""The CID of the parent instance, seen from an enclave."""

_PATH_MAX = 107  # sun_path less its closing zero byte, unix(7)
_NAME = re.compile(
    r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*\Z"
)
_NUMBER = re.compile(r"(0|[1-9][0-9]{0,9})\Z")


class Endpoint:
    """One of `Vsock`, `Unix`, `Tcp`; also the type of a settings field. `str` gives the notation back."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """`parse_endpoint`; on a subclass, of that kind only."""
        endpoint = parse_endpoint(text)
        if isinstance(endpoint, cls):
            return endpoint
        raise ValueError(f"a {cls.__name__.lower()}: endpoint expected: {text!r:.80}")


@dataclass(frozen=True, slots=True)
class Vsock(Endpoint):
    """A vsock address: context id and port, 32 bits each."""

    cid: int
    port: int

    def __post_init__(self) -> None:
        if not 0 <= self.cid <= 0xFFFFFFFF or not 0 <= self.port <= 0xFFFFFFFF:
            raise ValueError(f"a vsock CID and port have 32 bits: {self.cid}, {self.port}")

    def __str__(self) -> str:
        return f"vsock:{self.cid}:{self.port}"


@dataclass(frozen=True, slots=True)
class Unix(Endpoint):
    """A unix stream socket in the file system."""

    path: str

    def __post_init__(self) -> None:
        if not self.path or "\0" in self.path or len(os.fsencode(self.path)) > _PATH_MAX:
            raise ValueError(f"a socket's path has 1 to {_PATH_MAX} bytes, none of them zero: {self.path!r:.120}")

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class Tcp(Endpoint):
    """A host name or address, and a port; port 0 to listen on one that the kernel chooses."""

    host: str
    port: int

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 0xFFFF:
            raise ValueError(f"a TCP port is at most 65535: {self.port}")
        if ":" in self.host:
            _require_ipv6(self.host)
        elif self.host.replace(".", "").isdecimal():
            try:
                IPv4Address(self.host)
            except ValueError:
                raise ValueError(f"not an IPv4 address: {self.host!r:.80}") from None
        elif not _NAME.match(self.host):
            raise ValueError(f"not a host name: {self.host!r:.80}")

    def __str__(self) -> str:
        return f"tcp:[{self.host}]:{self.port}" if ":" in self.host else f"tcp:{self.host}:{self.port}"


def parse_endpoint(text: str) -> Endpoint:
    """The endpoint that `text` names. Raises ValueError that says what is wrong."""
    kind, colon, rest = text.partition(":")
    match kind:
        case "vsock" if colon:
            cid, _, port = rest.partition(":")
            return Vsock(_number(cid, "CID", text), _number(port, "port", text))
        case "unix" if colon:
            return Unix(rest)
        case "tcp" if colon:
            host, _, port = rest.rpartition(":")
            if host.startswith("[") and host.endswith("]"):
                host = host[1:-1]
                _require_ipv6(host)
            elif ":" in host:
                raise ValueError(f"an IPv6 address stands in brackets, tcp:[::1]:443: {text!r:.80}")
            return Tcp(host, _number(port, "port", text))
        case _:
            raise ValueError(f"vsock:CID:PORT, unix:PATH or tcp:HOST:PORT expected: {text!r:.80}")


async def connect(endpoint: Endpoint) -> trio.SocketStream:
    """A connection to `endpoint`. Raises OSError; the deadline is the caller's. TCP tries a name's addresses as RFC 8305 says."""
    match endpoint:
        case Tcp(host, port):
            return await trio.open_tcp_stream(host, port)
        case Unix(path):
            return await _connect(socket.AF_UNIX, path)
        case Vsock(cid, port):
            return await _connect(socket.AF_VSOCK, (cid, port))
        case _:
            raise TypeError(f"{endpoint!r} is no endpoint")


async def listen(endpoint: Endpoint, *, backlog: int = 1024, mode: int = 0o600) -> trio.SocketListener:
    """A listener on `endpoint`, which the caller owns. Raises OSError.

    A unix socket gets `mode` before it takes connections and replaces a socket file on which nobody listens any more. A TCP name
    that has several addresses is bound to the first; an IPv6 address never takes IPv4 connections.
    """
    family: int = socket.AF_UNIX
    address: str | tuple[object, ...]
    match endpoint:
        case Tcp(host, port):
            found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            family, address = found[0][0], found[0][4]
        case Unix(path):
            address = path
        case Vsock(cid, port):
            family, address = socket.AF_VSOCK, (cid, port)
        case _:
            raise TypeError(f"{endpoint!r} is no endpoint")
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setblocking(False)
        if isinstance(endpoint, Tcp):
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if isinstance(endpoint, Unix):
            _bind_unix(listening, endpoint.path, mode)
        else:
            listening.bind(address)
        listening.listen(backlog)
        return trio.SocketListener(trio.socket.from_stdlib_socket(listening))
    except BaseException:
        listening.close()
        raise


def bound(listener: trio.SocketListener) -> Endpoint:
    """The endpoint that the kernel bound `listener` to: with the port that it chose."""
    listening = listener.socket
    name = listening.getsockname()
    match listening.family:
        case socket.AF_UNIX:
            return Unix(name)
        case socket.AF_VSOCK:
            return Vsock(name[0], name[1])
        case _:
            return Tcp(name[0], name[1])


def _number(text: str, what: str, whole: str) -> int:
    if not _NUMBER.match(text):
        raise ValueError(f"the {what} must be a decimal number: {whole!r:.80}")
    return int(text)


def _require_ipv6(host: str) -> None:
    try:
        IPv6Address(host)
    except ValueError:
        raise ValueError(f"not an IPv6 address: {host!r:.80}") from None


async def _connect(family: int, address: str | tuple[int, int]) -> trio.SocketStream:
    connecting = trio.socket.socket(family, socket.SOCK_STREAM)
    try:
        await connecting.connect(address)
        return trio.SocketStream(connecting)
    except BaseException:
        connecting.close()
        raise


def _bind_unix(listening: socket.socket, path: str, mode: int) -> None:
    """Binds and sets the mode; nobody can connect in between, because `listen` comes after."""
    try:
        listening.bind(path)
    except OSError as error:
        if error.errno != errno.EADDRINUSE or not _is_stale(path):
            raise
        with suppress(FileNotFoundError):
            Path(path).unlink()
        listening.bind(path)
    Path(path).chmod(mode)


def _is_stale(path: str) -> bool:
    """Whether `path` is a socket that no process listens on."""
    try:
        if not stat.S_ISSOCK(Path(path).lstat().st_mode):
            return False
    except FileNotFoundError:
        return True
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        return probe.connect_ex(path) == errno.ECONNREFUSED
