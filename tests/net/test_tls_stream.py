"""A TLS stream behaves as trio's own streams do, half-close and hostile ends included, in TLS 1.2 and 1.3."""

import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Literal, TypeAlias

import pytest
import trio
import trio.testing
from OpenSSL import SSL

from runtime.net.tls import TlsStream, client_context, server_context
from tests.support.certificates import make_ca
from tests.support.sockets import open_descriptors, socket_pair
from tests.support.tls import at_most, handshake

NOW = datetime(2026, 11, 20, tzinfo=UTC)
CA = make_ca("root", NOW)
IDENTITY = CA.issue(("a.example",))
Version: TypeAlias = Literal["1.2", "1.3"]
both_versions = pytest.mark.parametrize("version", ["1.2", "1.3"])


async def pair(version: Version, *, send_buffer: int | None = None) -> tuple[TlsStream, TlsStream]:
    """Client and server."""
    client = at_most(client_context([CA.certificate], now=NOW), version)
    ends = await handshake(server_context([IDENTITY]), client, send_buffer=send_buffer)
    server_end, client_end = ends.both()
    assert server_end.version == client_end.version == version
    return client_end, server_end


def clog(stream: TlsStream) -> None:
    """Fills the socket until it holds no further record; one of a single byte is left with OpenSSL."""
    with suppress(SSL.WantWriteError):
        while True:
            stream._connection.send(b"x")


async def drain(stream: TlsStream) -> None:
    """Receives to the end."""
    while await stream.receive_some():
        pass


def maker(version: Version, *, clogged: bool) -> Callable[[], Awaitable[tuple[TlsStream, TlsStream]]]:
    async def make() -> tuple[TlsStream, TlsStream]:
        client, server = await pair(version, send_buffer=4096 if clogged else None)
        if clogged:
            clog(client)
            clog(server)
        return client, server

    return make


@both_versions
async def test_it_keeps_every_promise_of_a_half_closeable_stream(version: Version) -> None:
    await trio.testing.check_half_closeable_stream(maker(version, clogged=False), maker(version, clogged=True))


@both_versions
async def test_a_mebibyte_each_way_at_once_arrives_whole(version: Version) -> None:
    client, server = await pair(version)
    data = random.Random(2).randbytes(1 << 20)

    async def send(stream: TlsStream) -> None:
        await stream.send_all(data)
        await stream.send_eof()

    async def receive(stream: TlsStream) -> None:
        received = bytearray()
        while chunk := await stream.receive_some():
            assert len(chunk) <= 65536
            received += chunk
        assert received == data

    async with client, server, trio.open_nursery() as nursery:
        for stream in (client, server):
            nursery.start_soon(send, stream)
            nursery.start_soon(receive, stream)


@both_versions
async def test_a_half_closing_client_gets_its_answer(version: Version) -> None:
    client, server = await pair(version)
    async with client, server:
        await client.send_all(b"question")
        await client.send_eof()
        assert await server.receive_some() == b"question"
        assert await server.receive_some() == b""
        assert await server.receive_some() == b""
        await server.send_all(b"answer")
        await server.send_eof()
        assert await client.receive_some() == b"answer"
        assert await client.receive_some() == b""


@both_versions
async def test_an_end_without_close_notify_is_an_error(version: Version) -> None:
    client, server = await pair(version)
    async with server:
        await client.send_all(b"rm -rf /tmp")
        await client._stream.aclose()
        assert await server.receive_some() == b"rm -rf /tmp"
        for _ in range(2):
            with pytest.raises(trio.BrokenResourceError):
                await server.receive_some()


@both_versions
async def test_a_close_says_goodbye_and_a_forceful_or_cancelled_one_does_not(version: Version) -> None:
    client, server = await pair(version)
    await client.aclose()
    assert await server.receive_some() == b""
    await server.aclose()

    client, server = await pair(version)
    await trio.aclose_forcefully(client)
    with pytest.raises(trio.BrokenResourceError):
        await server.receive_some()
    await server.aclose()


async def test_a_close_does_not_wait_for_a_peer_that_reads_nothing() -> None:
    client, server = await pair("1.3", send_buffer=4096)
    clog(client)
    with trio.fail_after(60):
        await client.aclose()
    await server.aclose()


async def test_a_close_over_a_full_socket_does_not_touch_it_again() -> None:
    """The descriptor's number may belong to another connection at once."""
    client, server = await pair("1.3", send_buffer=4096)
    number = client._stream.socket.fileno()
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await client.send_all(bytes(1 << 20))

        async def receive() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await client.receive_some()

        nursery.start_soon(send)
        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        await client.aclose()
        left, right = socket_pair()
        assert number in {left.socket.fileno(), right.socket.fileno()}
    other = right if left.socket.fileno() == number else left
    with trio.move_on_after(0.05):
        assert await other.receive_some() == b"nothing may arrive"
    for operation in (lambda: client.send_all(b"x"), client.receive_some, client.send_eof):
        with pytest.raises(trio.ClosedResourceError):
            await operation()
    for stream in (left, right, server):
        await stream.aclose()


async def test_closing_the_socket_below_closes_the_stream() -> None:
    client, server = await pair("1.3")
    await client._stream.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await client.send_all(b"x")
    with pytest.raises(trio.ClosedResourceError):
        await client.receive_some()
    await client.aclose()
    await server.aclose()


async def test_a_send_that_was_cancelled_in_a_record_breaks_sending_and_not_receiving(
    autojump_clock: trio.testing.MockClock,
) -> None:
    client, server = await pair("1.3", send_buffer=4096)
    async with server:
        with trio.move_on_after(1) as scope:
            await client.send_all(bytes(1 << 20))
        assert scope.cancelled_caught
        with pytest.raises(trio.BrokenResourceError):
            await client.send_all(b"x")
        with pytest.raises(trio.BrokenResourceError):
            await client.send_eof()
        await server.send_all(b"still heard")
        assert await client.receive_some() == b"still heard"
        with trio.move_on_after(1):
            await drain(server)
        await client.aclose()  # there is room now, but a goodbye would make the cut message look whole
        with pytest.raises(trio.BrokenResourceError):
            await drain(server)


@both_versions
async def test_a_damaged_record_breaks_both_halves(version: Version) -> None:
    client, server = await pair(version)
    async with client, server:
        await client._stream.send_all(b"\x17\x03\x03\x00\x20" + bytes(32))
        for operation in (server.receive_some, server.receive_some, lambda: server.send_all(b"x"), server.send_eof):
            with pytest.raises(trio.BrokenResourceError):
                await operation()
        with pytest.raises(trio.BrokenResourceError, match="bad record mac"):
            await client.receive_some()


async def test_renegotiation_is_refused() -> None:
    client, server = await pair("1.2")
    async with client, server:
        with pytest.raises(SSL.Error, match="no renegotiation"):
            client._connection.renegotiate()


async def test_reading_that_wants_to_write_goes_well_with_a_sender_that_waits() -> None:
    """A peer that asks for key updates and reads nothing brings this about."""
    client, server = await pair("1.3", send_buffer=4096)
    wants = [SSL.WantWriteError(), SSL.WantWriteError()]

    def attempt() -> str:
        if wants:
            raise wants.pop()
        return "read"

    async with client, server, trio.open_nursery() as nursery:
        nursery.start_soon(client.send_all, bytes(100_000))
        await trio.testing.wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            nursery.start_soon(server.receive_some)
            assert await client._run(client._receiving, attempt) == "read"
        assert not scope.cancelled_caught
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("size", [0, -1])
async def test_a_size_is_at_least_one(size: int) -> None:
    client, server = await pair("1.3")
    async with client, server:
        with pytest.raises(ValueError, match="at least 1"):
            await client.receive_some(size)


async def test_both_ends_know_the_same_secret_and_no_other_connection_does() -> None:
    secrets = set()
    for version in ("1.2", "1.3"):
        client, server = await pair(version)
        async with client, server:
            ours = [stream.exporter(b"EXPORTER-enclave-attestation", bytes(range(16))) for stream in (client, server)]
            assert ours[0] == ours[1]
            assert len(ours[0]) == 32
            secrets |= {
                ours[0],
                client.exporter(b"EXPORTER-prov-1", bytes(range(16))),
                client.exporter(b"EXPORTER-enclave-attestation", bytes(range(1, 17))),
                client.exporter(b"EXPORTER-enclave-attestation", b""),
            }
            assert len(server.exporter(b"EXPORTER-prov-1", b"", 48)) == 48
    assert len(secrets) == 8


async def test_two_hundred_resets_leave_no_descriptor() -> None:
    before = open_descriptors()
    for number in range(200):
        client, server = await pair("1.2" if number % 2 else "1.3")
        await client.send_all(b"x")
        await client._stream.aclose()
        with pytest.raises(trio.BrokenResourceError):
            await drain(server)
        await server.aclose()
    assert open_descriptors() == before
