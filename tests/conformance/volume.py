"""Very large bodies in either direction: all of it arrives, and neither the worker nor the parent grows with it."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.conformance.launcher import NAME
from tests.conformance.outcome import Check
from tests.conformance.target import Target, memory_kib, running
from tests.conformance.tools import note

GIGABYTE = 10**9
RSS_MAX_MIB = 100.0
_PIECE = 256 * 1024
_PATIENCE = 60.0


def judge(gigabytes: float) -> list[Check]:
    """One check a direction."""
    size = int(gigabytes * GIGABYTE)
    checks = []
    for name, move in (("down", _down), ("up", _up)):
        with running() as target:  # the peak of a process is its whole life's
            begun = time.monotonic()
            with _progress(name, size) as moved, _connected(target) as client:
                arrived = move(client, size, moved)
            took = time.monotonic() - begun
            (worker,) = target.workers()
            peaks = [memory_kib(pid, "VmHWM") / 1024 for pid in (worker, target.parent)]
        checks.append(
            Check(
                name=f"{gigabytes:g} GB {name}",
                passed=arrived == size and peaks[0] < RSS_MAX_MIB,
                found=f"{'all' if arrived == size else arrived} arrived, RSS {peaks[0]:.0f} MiB at most",
                asked=f"all, < {RSS_MAX_MIB:.0f} MiB",
                notes=(f"{size / took / 1e6:.0f} MB/s, the parent's RSS {peaks[1]:.0f} MiB at most",),
            )
        )
    return checks


@contextmanager
def _connected(target: Target) -> Iterator[ssl.SSLSocket]:
    with (
        socket.create_connection(("127.0.0.1", target.port), timeout=_PATIENCE) as plain,
        target.context().wrap_socket(plain, server_hostname=NAME) as client,
    ):
        yield client


def _down(client: ssl.SSLSocket, size: int, moved: "_Moved") -> int:
    client.sendall(b"GET /stream?%d HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % (size, NAME.encode()))
    memory = memoryview(bytearray(_PIECE))
    head = b""
    while b"\r\n\r\n" not in head:
        head += client.recv(1)
    if not head.startswith(b"HTTP/1.1 200 "):
        return 0
    arrived = 0
    while taken := client.recv_into(memory):
        arrived += taken
        moved.bytes = arrived
    return arrived


def _up(client: ssl.SSLSocket, size: int, moved: "_Moved") -> int:
    client.sendall(b"POST /sink HTTP/1.1\r\nHost: %b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % (NAME.encode(), size))
    piece, sent = memoryview(bytes(_PIECE)), 0
    while sent < size:
        sent += client.send(piece[: size - sent])
        moved.bytes = sent
    answer = b""
    while data := client.recv(65536):
        answer += data
    body = answer.partition(b"\r\n\r\n")[2].split()
    return int(body[1]) if body[:1] == [b"POST"] else 0


@dataclass(slots=True)
class _Moved:
    bytes: int = 0


@contextmanager
def _progress(name: str, size: int) -> Iterator[_Moved]:
    moved, is_over = _Moved(), threading.Event()

    def tell(wait: Callable[[float], bool]) -> None:
        while not wait(10.0):
            note(f"{name}: {moved.bytes / GIGABYTE:.1f} of {size / GIGABYTE:g} GB")

    thread = threading.Thread(target=tell, args=(is_over.wait,))
    thread.start()
    try:
        yield moved
    finally:
        is_over.set()
        thread.join()
