"""One question to a resolver and one attempt at a gate, over real sockets, for __main__.py."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


def asked(port: int, data: bytes, *, seconds: float = 1.0) -> bytes | None:
    """The answer over UDP; None when there is none in time."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(seconds)
        client.connect(("127.0.0.1", port))
        try:
            client.send(data)
            return client.recv(65535)
        except OSError:
            return None


def passes(port: int, data: bytes) -> bool:
    """Whether anything of `data` reaches the echo behind a gate; `data` is all that comes."""
    with socket.socket() as client:
        client.settimeout(5)
        try:
            client.connect(("127.0.0.1", port))
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            return client.recv(1) != b""
        except OSError:
            return False


@contextmanager
def echo() -> Iterator[int]:
    """A server that sends back what it gets."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=_accept, args=(listening,), daemon=True).start()
        yield listening.getsockname()[1]
        with suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)


def _accept(listening: socket.socket) -> None:
    while True:
        try:
            accepted, _ = listening.accept()
        except OSError:
            return
        threading.Thread(target=_echo, args=(accepted,), daemon=True).start()


def _echo(accepted: socket.socket) -> None:
    with accepted, suppress(OSError):
        while data := accepted.recv(65536):
            accepted.sendall(data)
