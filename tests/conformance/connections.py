"""How connections end: killed workers under load, resets, close_notify, half-close, ALPN, and a handshake that drips."""

import os
import signal
import socket
import ssl
import struct
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPException

from tests.conformance.good_client import Served, ask, asking
from tests.conformance.launcher import NAME
from tests.conformance.outcome import Check
from tests.conformance.target import Target, descriptors, running
from tests.conformance.tools import note

CLIENTS = 16
KILLS = 5
RESETS = 200
RESET_SECONDS = 2.0
HANDSHAKE_SECONDS = 15.0
_PATIENCE = 30.0
_REQUEST = b"GET /keep HTTP/1.1\r\nHost: %b\r\n%b\r\n"
_CLOSE = b"Connection: close\r\n"
_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def judge() -> list[Check]:
    """Every check, the quick ones first."""
    with running() as target:
        checks = [check(target, version) for version in _VERSIONS for check in (_close_notify, _half_close)]
        checks += [_alpn(target), _drips(target), _resets(target)]
    with running(workers=2) as target:
        checks.append(_kills(target))
    return checks


def _close_notify(target: Target, version: str) -> Check:
    with _connected(target, version) as client:
        client.sendall(_REQUEST % (NAME.encode(), _CLOSE))
        try:
            while client.recv(65536):
                pass
            found = "close_notify"
        except ssl.SSLEOFError:
            found = "an end without it"
    return Check(name=f"TLS {version}: how an answer ends", passed=found == "close_notify", found=found, asked="close_notify")


def _half_close(target: Target, version: str) -> Check:
    """A client that ends its half right behind its request: close_notify, then the end of TCP."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = _context(target, version).wrap_bio(incoming, outgoing, server_hostname=NAME)
    answer = b""
    with socket.create_connection((NAME, target.port), timeout=_PATIENCE) as plain:
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                plain.sendall(outgoing.read())
                incoming.write(plain.recv(65536))
        tls.write(_REQUEST % (NAME.encode(), b""))
        with suppress(ssl.SSLWantReadError):
            tls.unwrap()
        plain.sendall(outgoing.read())
        plain.shutdown(socket.SHUT_WR)
        while data := plain.recv(65536):
            incoming.write(data)
        with suppress(ssl.SSLError):
            while data := tls.read(65536):
                answer += data
    is_answered = answer.startswith(b"HTTP/1.1 200 ")
    return Check(
        name=f"TLS {version}: a half-closing client",
        passed=is_answered,
        found="gets its answer" if is_answered else f"{len(answer)} bytes",
        asked="gets its answer",
    )


def _alpn(target: Target) -> Check:
    context = target.context()
    context.set_alpn_protocols(["h2"])
    try:
        with _wrap(target, context):
            found = "accepted"
    except ssl.SSLError as error:
        found = str(error)  # its `reason` is for errors that this Python knows
    return Check(
        name="a client that offers h2 alone",
        passed="alert no application protocol" in found,
        found="alert 120" if "alert no application protocol" in found else found,
        asked="alert 120, no_application_protocol",
    )


def _drips(target: Target) -> Check:
    """A ClientHello of which a byte comes every quarter of a second: never idle, never done."""
    note("a handshake that drips")
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = target.context().wrap_bio(incoming, outgoing, server_hostname=NAME)
    with suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    hello, begun = outgoing.read(), time.monotonic()
    with socket.create_connection((NAME, target.port), timeout=0.25) as plain, suppress(ConnectionError):
        for position in range(len(hello)):
            plain.sendall(hello[position : position + 1])
            try:
                if not plain.recv(1):
                    break
            except TimeoutError:
                pass
            if time.monotonic() - begun > 4 * HANDSHAKE_SECONDS:
                break
    took = time.monotonic() - begun
    return Check(
        name="a handshake of one byte each 0.25 s",
        passed=took < HANDSHAKE_SECONDS,
        found=f"ended after {took:.1f} s",
        asked=f"< {HANDSHAKE_SECONDS:.0f} s",
    )


def _resets(target: Target) -> Check:
    """Each client has one answer, asks for much more, and is gone with a reset in the middle of it."""
    processes = {"worker": target.workers()[0], "parent": target.parent}
    ask(target, target.context(), Served())
    time.sleep(1.0)
    before = {name: descriptors(pid) for name, pid in processes.items()}
    for _ in range(RESETS):
        with _connected(target, "1.3") as client:
            client.sendall(_REQUEST.replace(b"/keep", b"/stream?50000000") % (NAME.encode(), b""))
            client.recv(1000)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    begun = time.monotonic()
    more = dict.fromkeys(processes, 1)
    while any(count > 0 for count in more.values()) and time.monotonic() < begun + _PATIENCE:
        more = {name: descriptors(pid) - before[name] for name, pid in processes.items()}
        time.sleep(0.02)
    took = time.monotonic() - begun
    left = ", ".join(f"{name} {count:+}" for name, count in more.items())
    return Check(
        name=f"descriptors after {RESETS} resets",
        passed=took < RESET_SECONDS,
        found=f"{left} after {took:.1f} s",
        asked=f"none left after {RESET_SECONDS:.0f} s",
    )


@dataclass(slots=True)
class _Kept:
    """Clients that keep one connection each and ask on it all the time: how many lost theirs, and how often."""

    requests: int = 0
    lost: int = 0
    wrong: list[str] = field(default_factory=list)


def _kills(target: Target) -> Check:
    """One of two workers is killed again and again: a connection may break with its worker, a new one never fails."""
    note(f"workers are killed: {KILLS} times")
    kept, is_over = _Kept(), threading.Event()
    threads = [threading.Thread(target=_keep_asking, args=(target, kept, is_over)) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    killed = 0
    with asking(target, pause=0.01) as fresh:
        for number in range(KILLS):
            time.sleep(1.0)
            workers = target.workers()
            killed += len(workers) == 2  # the other one, and the one that took the last one's place
            os.kill(workers[number % 2], signal.SIGKILL)  # the older one, to which most connections went, and the younger one
        time.sleep(1.0)
    is_over.set()
    for thread in threads:
        thread.join()
    return Check(
        name=f"{KILLS} workers killed under load",
        passed=not kept.wrong and killed == KILLS and len(fresh.failures) <= KILLS and kept.lost <= KILLS * CLIENTS,
        found=f"{len(kept.wrong)} wrong, {kept.lost} connections lost",
        asked="only connections of the killed",
        notes=(
            f"{CLIENTS} kept connections: {kept.requests} requests; beside them {len(fresh.seconds)} connections for one request each, "
            f"{len(fresh.failures)} of them cut (each kill may cut the one that its worker had)",
            *kept.wrong[:5],
        ),
    )


def _keep_asking(target: Target, kept: _Kept, is_over: threading.Event) -> None:
    context = target.context()
    while not is_over.is_set():
        client = target.client(context)
        try:
            client.connect()
        except OSError as error:
            kept.wrong.append(f"a new connection failed: {type(error).__name__}")
            time.sleep(0.05)
            continue
        try:
            while not is_over.is_set():
                client.request("GET", "/keep")
                response = client.getresponse()
                if response.status != 200 or not response.read():
                    kept.wrong.append(f"status {response.status}")
                kept.requests += 1
        except (OSError, HTTPException):
            kept.lost += 1
        finally:
            client.close()


def _context(target: Target, version: str) -> ssl.SSLContext:
    context = target.context()
    context.minimum_version = context.maximum_version = _VERSIONS[version]
    return context


def _connected(target: Target, version: str) -> ssl.SSLSocket:
    return _wrap(target, _context(target, version))


def _wrap(target: Target, context: ssl.SSLContext) -> ssl.SSLSocket:
    plain = socket.create_connection((NAME, target.port), timeout=_PATIENCE)
    try:
        return context.wrap_socket(plain, server_hostname=NAME, suppress_ragged_eofs=False)
    except BaseException:
        plain.close()
        raise
