"""The accept loop on a hub: limits, wants of descriptors, errors that end one connection, and its end."""

import errno
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from runtime.net.hub import IN, Expired, Work
from runtime.net.hub_accept import Accepting, Handler
from runtime.net.hub_socket import Plain, receive_exactly, send_all
from runtime.net.tls import TlsError
from runtime.protocol.errors import Malformed
from tests.support.hubs import running_hub
from tests.support.sockets import open_descriptors


async def echo(work: Work, plain: Plain) -> None:
    while True:
        await work.wait(plain.source, IN)
        data = plain.socket.recv(100)
        if not data:
            return
        await send_all(work, plain, data)


@dataclass
class Server:
    """Accepting on a port of its own, and what it reported."""

    accepting: Accepting
    address: tuple[str, int]
    errors: list[BaseException] = field(default_factory=list)

    async def client(self) -> trio.SocketStream:
        return await trio.open_tcp_stream(*self.address)

    async def is_served(self) -> bool:
        async with await self.client() as client:
            await client.send_all(b"hello")
            with trio.fail_after(30):
                return await client.receive_some(100) == b"hello"


class Scripted(socket.socket):
    """A listening socket whose first attempts to accept fail."""

    def __init__(self, *failures: OSError) -> None:
        super().__init__()
        self.failures = list(failures)
        self.attempted_at: list[float] = []

    def accept(self) -> tuple[socket.socket, object]:
        self.attempted_at.append(trio.current_time())
        if self.failures:
            raise self.failures.pop(0)
        return super().accept()


@asynccontextmanager
async def server(handler: Handler = echo, *, limit: int = 10, listening: socket.socket | None = None) -> AsyncIterator[Server]:
    listening = listening or socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(100)
    async with running_hub() as hub:
        errors: list[BaseException] = []
        accepting = Accepting(hub, listening, handler, limit=limit, on_error=errors.append)
        try:
            yield Server(accepting, listening.getsockname(), errors)
        finally:
            accepting.close()


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(errno.ECONNRESET, "reset"),
        OSError(errno.EMFILE, "no descriptor for the upstream"),
        Malformed("no header", "proxy_signature"),
        TlsError("tls_handshake", "not TLS"),
        Expired(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_an_error_of_a_connection_ends_it_and_nothing_else(error: Exception) -> None:
    async def handler(work: Work, plain: Plain) -> None:
        if await receive_exactly(work, plain, 5) == b"fail!":
            raise error
        await send_all(work, plain, b"hello")

    async with server(handler) as running:
        async with await running.client() as client:
            await client.send_all(b"fail!")
            assert await client.receive_some(1) == b""
        assert await running.is_served()
        (reported,) = running.errors
        assert isinstance(reported, trio.TooSlowError if isinstance(error, Expired) else type(error))


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
async def test_a_want_of_descriptors_is_waited_out(number: int, autojump_clock: MockClock) -> None:
    shortage = [OSError(number, "none left") for _ in range(7)]
    listening = Scripted(*shortage)
    async with server(listening=listening) as running:
        assert await running.is_served()
        assert running.errors == shortage
    waits = [after - before for before, after in zip(listening.attempted_at, listening.attempted_at[1:], strict=False)][:7]
    assert waits == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1, 1], abs=0.04)


async def test_a_connection_that_was_aborted_before_it_was_accepted_is_passed_over() -> None:
    async with server(listening=Scripted(OSError(errno.ECONNABORTED, "aborted"))) as running:
        assert await running.is_served()
        assert running.errors == []


async def test_any_other_error_of_accepting_ends_the_hub() -> None:
    with pytest.RaisesGroup(OSError, flatten_subgroups=True):
        async with server(listening=Scripted(OSError(errno.EINVAL, "not listening"))) as running, await running.client():
            await trio.sleep_forever()


async def test_at_the_limit_the_next_waits_for_a_place() -> None:
    async with server(limit=2) as running:
        first, second, third = [await running.client() for _ in range(3)]
        for client in (first, second):
            await client.send_all(b"here")
            assert await client.receive_some(10) == b"here"
        await third.send_all(b"me too")
        with trio.move_on_after(0.05):
            await third.receive_some(10)
            raise AssertionError("there was no place")
        await first.aclose()
        assert await third.receive_some(10) == b"me too"
        await second.aclose()
        await third.aclose()


async def test_closed_it_refuses_and_waits_for_those_there_are() -> None:
    before = open_descriptors()
    async with server() as running:
        client = await running.client()
        await client.send_all(b"x")
        assert await client.receive_some(1) == b"x"
        running.accepting.close()
        with pytest.raises(OSError, match="connect"):
            await running.client()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(running.accepting.wait_ended)
            await client.send_all(b"still here")
            assert await client.receive_some(100) == b"still here"
            await client.aclose()
    assert open_descriptors() == before


async def test_what_is_accepted_sends_without_delay_and_knows_its_peer() -> None:
    seen: list[tuple[int, object]] = []

    async def handler(work: Work, plain: Plain) -> None:
        seen.append((plain.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY), plain.peer))
        await send_all(work, plain, b"seen")

    async with server(handler) as running, await running.client() as client:
        assert await client.receive_some(10) == b"seen"
        assert seen == [(1, client.socket.getsockname())]
