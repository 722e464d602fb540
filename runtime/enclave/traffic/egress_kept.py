"""Keeps the listeners of names open when the worker ends, so that no process can take the place of a name that others remember.

Runs in the egress worker. The listeners lie as messages in a queue, a socket pair whose ends PID 1 holds and never touches: what is sent
over a unix socket stays open until somebody receives it. A worker that starts takes each message out, and puts it back before the next.
"""

import os
import socket
from collections.abc import Sequence
from ipaddress import IPv4Address

_MESSAGE_BYTES = 1536
"""What the kernel counts for a message of a name, at most."""
_SOCKETS_MAX = 128
"""In one message, of the kernel's 253."""
_NAME_MAX = 253
_END = b"\0"


class KeptListeners:
    """The queue: `write` sends into it, `read` receives."""

    def __init__(self, write: socket.socket, read: socket.socket) -> None:
        self._write, self._read = write, read
        write.setblocking(False)
        read.setblocking(False)
        self._left = write.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // _MESSAGE_BYTES - 2  # two ends of a taking-out

    def keep(self, name: str, listening: Sequence[socket.socket]) -> bool:
        """Keeps what listens for `name`; False when there is no room."""
        parts = [listening[start : start + _SOCKETS_MAX] for start in range(0, len(listening), _SOCKETS_MAX)]
        if len(parts) > self._left:
            return False
        self._left -= len(parts)
        try:
            for part in parts:
                socket.send_fds(self._write, [name.encode()], [each.fileno() for each in part])
        except OSError:  # ETOOMANYREFS: a user has no more in queues than it may have open
            return False
        return True

    def taken(self) -> dict[str, dict[tuple[IPv4Address, int], socket.socket]]:
        """What is kept of the workers before, by name and place. Once, before anything is kept."""
        found: dict[str, dict[tuple[IPv4Address, int], socket.socket]] = {}
        end = _END + os.urandom(8)  # another's, who was killed at this, may still be there
        self._write.send(end)
        while True:
            message, descriptors, _, _ = socket.recv_fds(self._read, _NAME_MAX, _SOCKETS_MAX)
            if message == end:
                return found
            if message.startswith(_END):
                continue
            socket.send_fds(self._write, [message], descriptors)
            self._left -= 1
            places = found.setdefault(message.decode(), {})
            for listening in map(_socket, descriptors):
                address, port = listening.getsockname()
                places[IPv4Address(address), port] = listening


def _socket(descriptor: int) -> socket.socket:
    return socket.socket(fileno=descriptor)
