"""Sets loopback up, which a fresh kernel and a fresh network namespace do not, and proves by a connection that it carries; and what else
the egress needs of the network: sockets for the resolver, and ports below 1024 for a worker that is not root."""

import fcntl
import socket
import struct
from contextlib import suppress
from pathlib import Path

RESOLVER = ("127.0.0.1", 53)
"""Where programs ask for names: /etc/resolv.conf says so."""

_SO_SNDBUFFORCE = 32  # asm-generic/socket.h
_KEEPING_BYTES = 1 << 24
"""The kernel takes double, for 16384 messages."""
_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1
_CONNECT_SECONDS = 1.0
_FIRST_PORT = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")


def bring_up_loopback() -> bool:
    """`lo` is up afterwards, and 127.0.0.1 reached over it; whether it was down. Raises OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack("16xH14x", fcntl.ioctl(control, _SIOCGIFFLAGS, request))[0]
        was_down = not flags & _IFF_UP
        if was_down:
            fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | _IFF_UP))
    _connect(socket.AF_INET, "127.0.0.1")
    return was_down


def verify_ipv6_loopback() -> bool:
    """::1, which the kernel gives to `lo` when it comes up, is reached; True. Raises OSError."""
    _connect(socket.AF_INET6, "::1")
    return True


def open_low_ports() -> bool:
    """Every user may listen on every port of this network namespace (ip-sysctl.rst). Whether that was not so. Raises OSError."""
    if _FIRST_PORT.read_text().strip() == "0":
        return False
    _FIRST_PORT.write_text("0")
    return True


def resolver_sockets() -> tuple[socket.socket, socket.socket]:
    """For datagrams and for connections, at `RESOLVER`. Raises OSError."""
    opened: list[socket.socket] = []
    try:
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            opened.append(socket.socket(socket.AF_INET, kind))
            if kind == socket.SOCK_STREAM:
                opened[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened[-1].bind(RESOLVER)
        opened[1].listen(128)
    except OSError:
        for each in opened:
            each.close()
        raise
    return opened[0], opened[1]


def keeping_sockets() -> tuple[socket.socket, socket.socket]:
    """The ends of a queue that keeps the listeners of names (traffic/egress_kept.py). Raises OSError."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with suppress(PermissionError):  # then as many as the system lets everybody have
        ends[0].setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _KEEPING_BYTES)
    return ends


def proxy_socket(host: str, port: int) -> socket.socket:
    """For connections to the explicit proxy. Raises OSError."""
    return socket.create_server((host, port), backlog=1024)


def _connect(family: socket.AddressFamily, address: str) -> None:
    with (
        socket.create_server((address, 0), family=family) as listener,
        socket.create_connection(listener.getsockname()[:2], timeout=_CONNECT_SECONDS),
    ):
        pass
