"""What the kernel refuses on loopback, seen by real packets; only root may look."""

import errno
import os
import socket
from contextlib import suppress

import pytest
import trio

from runtime.enclave.refusals import RECORD, open_watch, watched
from runtime.protocol.link_values import JournalFields, Level

RECORD_ROUTE = b"\x07\x07\x04" + bytes(5)
"""An option with room for one address (RFC 791 section 3.1), which the kernel's answer has too."""


def may_watch() -> bool:
    """Whether this process may see packets."""
    with suppress(OSError):
        open_watch().close()
        return True
    return False


def free_port() -> int:
    with socket.create_server(("", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def attempt(asking: socket.socket, place: tuple[str, int]) -> None:
    """Raises ConnectionRefusedError: of datagrams the second one does, for the first."""
    asking.connect(place)
    asking.send(b"x")
    asking.send(b"x")


async def next_record(worker: trio.socket.SocketType) -> tuple[str, int, bool]:
    with trio.fail_after(60):
        record = await worker.recv(RECORD)
    return socket.inet_ntoa(record[:4]), int.from_bytes(record[4:6], "big"), record[6] == 1


async def test_an_attempt_with_ip_options_is_told_of_as_any_other() -> None:
    async with trio.open_nursery() as nursery:
        with trio.socket.from_stdlib_socket(watched(nursery, lambda *_: None)) as worker:
            if not may_watch():
                nursery.cancel_scope.cancel()
                return
            address, port = f"127.66.{os.getpid() % 250}.7", free_port()
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                with socket.socket(socket.AF_INET, kind) as asking:
                    asking.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, RECORD_ROUTE)
                    with pytest.raises(ConnectionRefusedError):
                        attempt(asking, (address, port))
                found = await next_record(worker)
                while found[0] != address:  # another test's, on the same machine
                    found = await next_record(worker)
                assert found == (address, port, kind == socket.SOCK_DGRAM)
        nursery.cancel_scope.cancel()


async def test_a_port_nobody_listens_on_is_told_of_and_no_other_traffic() -> None:
    notes: list[tuple[str, JournalFields, Level]] = []
    async with trio.open_nursery() as nursery:
        with trio.socket.from_stdlib_socket(watched(nursery, lambda *note: notes.append(note))) as worker:
            if not may_watch():
                assert [(event, fields) for event, fields, _ in notes] == [("egress.unwatched", {"errno": "EPERM"})]
                return
            address, port = f"127.65.{os.getpid() % 250}.7", free_port()
            for host in ("127.0.0.1", "127.128.0.1"):
                with pytest.raises(ConnectionRefusedError):
                    socket.create_connection((host, port))
            with socket.create_server((address, 0)) as listening, socket.create_connection(listening.getsockname()) as stream:
                stream.sendall(b"x")
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((address, port))
            found = await next_record(worker)
            while found[0] != address:  # another test's, on the same machine
                found = await next_record(worker)
            while found[1] != port:  # the reset of the connection above, which nobody had accepted
                found = await next_record(worker)
            assert found == (address, port, False)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
                asking.connect((address, port))
                asking.send(b"x")
                while found != (address, port, True):
                    found = await next_record(worker)
                assert asking.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
        nursery.cancel_scope.cancel()
