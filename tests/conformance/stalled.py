"""Clients that say nothing, and clients that stop within their handshake: how long they may stay, and what a good client notices.

They come one after the other, in two seconds, while the good client asks, and it goes on asking while all of them are there. When they
come all at once the first request behind them waits until each has been let in: that is shown, and is a matter of how fast the machine is.

The worst of a round says something about other programs on the machine too, so what counts is the middle of the rounds' differences.
"""

import socket
import ssl
import threading
import time
from contextlib import ExitStack
from statistics import median

from tests.conformance.good_client import Served, ask, ask_often
from tests.conformance.outcome import Check
from tests.conformance.target import Target, running
from tests.conformance.tools import note

SILENT = 1000
HALF = 1000
REQUESTS = 300
DELAY_MAX_MS = 50.0
GONE_SECONDS = 15.0
_ROUNDS = 5
_PACE = 0.001
_HALF_SIZE = 200


def judge() -> list[Check]:
    """The delay of a good client beside them, in the median and in the worst case; and when the last of them is gone."""
    hello = _client_hello()[:_HALF_SIZE]
    alone: list[Served] = []
    beside: list[Served] = []
    behind = Served()
    gone: list[float] = []
    held: list[int] = []
    with running() as target:
        ask_often(target, 50)
        for number in range(1, _ROUNDS + 1):
            note(f"stalled clients: round {number} of {_ROUNDS}")
            alone.append(ask_often(target, REQUESTS))
            with ExitStack() as stack:
                stalled: list[socket.socket] = []
                coming = threading.Thread(target=_come, args=(stack, target, hello, stalled, _PACE))
                begun = time.monotonic()
                coming.start()
                served, context = Served(), target.context()
                while coming.is_alive() or len(served.seconds) + len(served.failures) < 2 * REQUESTS:
                    ask(target, context, served)
                beside.append(served)
                held.append(sum(_is_open(each) for each in stalled))
                gone.append(_until_gone(stalled) - begun)
        with ExitStack() as stack:
            _come(stack, target, hello, [], 0.0)
            ask(target, target.context(), behind)
    name = f"{SILENT} silent and {HALF} half handshakes"
    failures = sum(len(each.failures) for each in beside)
    return [
        _delay(f"{name}: median delay", [each.median_ms for each in alone], [each.median_ms for each in beside], failures),
        _delay(
            f"{name}: worst delay",
            [each.worst_ms for each in alone],
            [each.worst_ms for each in beside],
            failures,
            f"all at once, the first request behind them: {behind.worst_ms:.0f} ms",
        ),
        Check(
            name=f"{name}: gone",
            passed=max(gone) < GONE_SECONDS and min(held) == SILENT + HALF,
            found=f"after {max(gone):.1f} s, {min(held)} held until then",
            asked=f"by {GONE_SECONDS:.0f} s, {SILENT + HALF} held",
        ),
    ]


def _delay(name: str, alone: list[float], beside: list[float], failures: int, *notes: str) -> Check:
    delay = median(after - before for before, after in zip(alone, beside, strict=True))
    rounds = ", ".join(f"{before:.1f} -> {after:.1f}" for before, after in zip(alone, beside, strict=True))
    return Check(
        name=name,
        passed=delay < DELAY_MAX_MS and not failures,
        found=f"{delay:+.1f} ms, {failures} failed",
        asked=f"< {DELAY_MAX_MS:.0f} ms, 0 failed",
        notes=(f"ms alone -> beside them, {len(alone)} rounds: {rounds}", *notes),
    )


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
