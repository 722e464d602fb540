"""Clients that say nothing, and clients that stop within their handshake: how long they may stay, and what a good client notices.

They come one after the other, in two seconds, while the good client asks, and it goes on asking while all of them are there. When they
come all at once the first request behind them waits until each has been let in: that is shown, and is a matter of how fast the machine is.
"""

import socket
import ssl
import threading
import time
from contextlib import ExitStack

from tests.conformance.good_client import Served, ask_often
from tests.conformance.outcome import Check
from tests.conformance.target import Target, running
from tests.conformance.tools import note

SILENT = 1000
HALF = 1000
REQUESTS = 300
DELAY_MAX_MS = 50.0
GONE_SECONDS = 15.0
_ROUNDS = 3
_PACE = 0.001
_HALF_SIZE = 200


def judge() -> list[Check]:
    """The delay of a good client beside them, in the median and in the worst case; and when the last of them is gone."""
    hello = _client_hello()[:_HALF_SIZE]
    alone, beside, behind = Served(), Served(), Served()
    gone: list[float] = []
    held: list[int] = []
    with running() as target:
        ask_often(target, 50)
        for number in range(1, _ROUNDS + 1):
            note(f"stalled clients: round {number} of {_ROUNDS}")
            _add(alone, ask_often(target, REQUESTS))
            with ExitStack() as stack:
                stalled: list[socket.socket] = []
                coming = threading.Thread(target=_come, args=(stack, target, hello, stalled, _PACE))
                begun = time.monotonic()
                coming.start()
                while coming.is_alive():
                    _add(beside, ask_often(target, 1))
                _add(beside, ask_often(target, REQUESTS))
                held.append(sum(_is_open(each) for each in stalled))
                gone.append(_until_gone(stalled) - begun)
        with ExitStack() as stack:
            _come(stack, target, hello, [], 0.0)
            _add(behind, ask_often(target, 1))
    name = f"{SILENT} silent and {HALF} half handshakes"
    count = f"{len(beside.seconds)} requests"
    worst, middle = beside.worst_ms - alone.worst_ms, beside.median_ms - alone.median_ms
    return [
        Check(
            name=f"{name}: delay, median",
            passed=middle < DELAY_MAX_MS,
            found=f"{middle:+.1f} ms",
            asked=f"< {DELAY_MAX_MS:.0f} ms",
            notes=(f"{count}: {alone.median_ms:.1f} ms alone, {beside.median_ms:.1f} ms beside them",),
        ),
        Check(
            name=f"{name}: delay, worst",
            passed=worst < DELAY_MAX_MS and not beside.failures,
            found=f"{worst:+.1f} ms, {len(beside.failures)} failed",
            asked=f"< {DELAY_MAX_MS:.0f} ms, 0 failed",
            notes=(
                f"{count}: {alone.worst_ms:.1f} ms alone, {beside.worst_ms:.1f} ms beside them",
                f"all at once, the first request behind them: {behind.worst_ms:.0f} ms",
            ),
        ),
        Check(
            name=f"{name}: gone",
            passed=max(gone) < GONE_SECONDS and min(held) == SILENT + HALF,
            found=f"after {max(gone):.1f} s, {min(held)} held until then",
            asked=f"by {GONE_SECONDS:.0f} s, {SILENT + HALF} held",
        ),
    ]


def _client_hello() -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError("a handshake with nobody")


def _stall(stack: ExitStack, target: Target, data: bytes) -> socket.socket:
    connection = stack.enter_context(socket.create_connection(("127.0.0.1", target.port), timeout=10))
    connection.sendall(data)
    connection.setblocking(False)
    return connection


def _come(stack: ExitStack, target: Target, hello: bytes, stalled: list[socket.socket], pace: float) -> None:
    for index in range(SILENT + HALF):
        stalled.append(_stall(stack, target, hello if index % 2 else b""))
        time.sleep(pace)


def _is_open(connection: socket.socket) -> bool:
    try:
        return bool(connection.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return True
    except OSError:
        return False


def _until_gone(stalled: list[socket.socket]) -> float:
    deadline = time.monotonic() + 4 * GONE_SECONDS
    while any(_is_open(each) for each in stalled) and time.monotonic() < deadline:
        time.sleep(0.1)
    return time.monotonic()


def _add(to: Served, more: Served) -> None:
    to.seconds += more.seconds
    to.failures += more.failures
