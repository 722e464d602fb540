"""Sets loopback up, which a fresh kernel and a fresh network namespace do not, and proves by a connection that it carries."""

import fcntl
import socket
import struct

_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1
_CONNECT_SECONDS = 1.0


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


def _connect(family: socket.AddressFamily, address: str) -> None:
    with (
        socket.create_server((address, 0), family=family) as listener,
        socket.create_connection(listener.getsockname()[:2], timeout=_CONNECT_SECONDS),
    ):
        pass
