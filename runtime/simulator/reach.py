"""Reaches the local attestation API of a simulated enclave from outside its network namespace, for people and tests.

A socket belongs to the network namespace that its thread was in when it was made, so one short-lived thread enters the namespace, connects
and leaves its descriptor behind.
"""

import os
import socket
import threading
from pathlib import Path

import trio

from runtime.net.endpoint import Tcp
from runtime.simulator.namespaces import set_namespace
from runtime.simulator.relay import relay

_CONNECT_SECONDS = 5.0


async def forward(outside: trio.SocketStream, pid: int, inside: Tcp) -> None:
    """Carries one connection to `inside`, a loopback endpoint in the network namespace of process `pid`. Raises OSError."""
    connected = await trio.to_thread.run_sync(_connect_inside, pid, inside)
    await relay(outside, trio.SocketStream(trio.socket.from_stdlib_socket(connected)))


def _connect_inside(pid: int, inside: Tcp) -> socket.socket:
    """Runs the connecting in a thread of its own, which never comes back to a pool."""
    outcome: list[socket.socket | OSError] = []

    def connect() -> None:
        try:
            outcome.append(_enter_and_connect(pid, inside))
        except OSError as error:
            outcome.append(error)

    thread = threading.Thread(target=connect, name="local-api")
    thread.start()
    thread.join()
    if isinstance(outcome[0], OSError):
        raise outcome[0]
    return outcome[0]


def _enter_and_connect(pid: int, inside: Tcp) -> socket.socket:
    namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if not Path(f"/proc/{pid}/ns/net").samefile("/proc/self/ns/net"):
            set_namespace(namespace)
    finally:
        os.close(namespace)
    connected = socket.create_connection((inside.host, inside.port), timeout=_CONNECT_SECONDS)
    connected.setblocking(False)
    return connected
