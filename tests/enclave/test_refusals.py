"""What the kernel refuses on loopback, seen by real packets; only root may look."""

import errno
import os
import socket
from contextlib import suppress

import pytest
import trio

from runtime.enclave.refusals import RECORD, open_watch, watched
from runtime.protocol.link_values import JournalFields, Level


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


async def next_record(worker: trio.socket.SocketType) -> tuple[str, int, bool]:
    with trio.fail_after(60):
        record = await worker.recv(RECORD)
    return socket.inet_ntoa(record[:4]), int.from_bytes(record[4:6], "big"), record[6] == 1


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
