"""Ingress at the parent: the PROXY header to the byte, half-close, an enclave that is not up."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from runtime.net.endpoint import Tcp, listen
from runtime.net.hub import Work
from runtime.net.hub_accept import Accepting
from runtime.net.hub_relay import Means
from runtime.net.hub_socket import Plain, detached
from runtime.parent.config import Limits
from runtime.parent.ingress import IngressRelay
from runtime.protocol.errors import Refused
from tests.support.hubs import dialled, on_hub, running_hub
from tests.support.sockets import Wire, open_descriptors, socket_pair

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")


class Fixture:
    """A real TCP port in front of an enclave whose side of each connection the test gets."""

    def __init__(self, nursery: trio.Nursery, limits: Limits | None = None) -> None:
        self._send, self.accepted = trio.open_memory_channel[trio.SocketStream](10)
        self.wire = Wire(nursery, self._keep)
        self.reachable: list[bool] = []
        self.means = Means()
        self.relay = IngressRelay(
            lambda work: dialled(work, self.wire.connect), limits or Limits(), self.means, reachable=self.reachable.append
        )
        self.errors: list[BaseException] = []

    async def _keep(self, stream: trio.SocketStream) -> None:
        await self._send.send(stream)
        await trio.sleep_forever()


@asynccontextmanager
async def ingress(host: str = "127.0.0.1", limits: Limits | None = None) -> AsyncIterator[tuple[Fixture, tuple[str, int]]]:
    async with trio.open_nursery() as nursery:
        fixture = Fixture(nursery, limits)
        listener = await listen(Tcp(host, 0))
        address = listener.socket.getsockname()[:2]
        async with running_hub() as hub:
            accepting = Accepting(hub, detached(listener), fixture.relay.serve, limit=10, on_error=fixture.errors.append)
            try:
                yield fixture, address
            finally:
                accepting.close()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("host", "start"),
    [
        ("127.0.0.1", bytes.fromhex("2111000c 7f000001 7f000001")),
        ("::1", bytes.fromhex("21210024") + (bytes(15) + b"\1") * 2),
    ],
    ids=["tcp4", "tcp6"],
)
async def test_the_enclave_reads_who_connected_to_what_and_then_the_clients_bytes(host: str, start: bytes) -> None:
    async with ingress(host) as (fixture, address), await trio.open_tcp_stream(*address) as client:
        await client.send_all(b"\x16\x03\x01 hello")
        await client.send_eof()
        enclave = await fixture.accepted.receive()
        ports = client.socket.getsockname()[1].to_bytes(2, "big") + address[1].to_bytes(2, "big")
        assert b"".join([bytes(data) async for data in enclave]) == SIGNATURE + start + ports + b"\x16\x03\x01 hello"
        await enclave.send_all(b"answer after the client's end")
        await enclave.send_eof()
        assert b"".join([bytes(data) async for data in client]) == b"answer after the client's end"


async def test_a_client_that_did_not_come_over_tcp_has_no_address() -> None:
    async with trio.open_nursery() as nursery:
        fixture = Fixture(nursery)
        client, accepted = socket_pair()
        nursery.start_soon(on_hub(fixture.relay.serve), accepted)
        enclave = await fixture.accepted.receive()
        assert await enclave.receive_some(100) == SIGNATURE + bytes.fromhex("20000000")
        await client.aclose()
        nursery.cancel_scope.cancel()
    await accepted.aclose()


async def is_closed(address: tuple[str, int]) -> bool:
    async with await trio.open_tcp_stream(*address) as client:
        try:
            return not await client.receive_some(1)
        except trio.BrokenResourceError:
            return True


async def test_while_the_enclave_is_down_clients_are_closed_at_once_and_served_as_soon_as_it_is_up() -> None:
    async with ingress() as (fixture, address):
        fixture.wire.is_down = True
        assert await is_closed(address)
        assert await is_closed(address)
        fixture.wire.is_down = False
        async with await trio.open_tcp_stream(*address):
            await fixture.accepted.receive()
        fixture.wire.is_down = True
        assert await is_closed(address)
        assert fixture.reachable == [False, True, False]


async def test_an_enclave_that_does_not_take_the_connection_is_given_up_at_the_deadline(autojump_clock: MockClock) -> None:
    async def hangs(work: Work) -> Plain:
        await work.call(trio.sleep_forever)
        raise AssertionError

    reachable: list[bool] = []
    relay = IngressRelay(hangs, Limits(connect=7.0), Means(), reachable=reachable.append)
    client, accepted = socket_pair()
    async with client, accepted:
        with pytest.raises(trio.TooSlowError):
            await on_hub(relay.serve)(accepted)
    assert trio.current_time() == pytest.approx(7)
    assert reachable == [False]


async def test_an_idle_connection_ends_at_its_deadline(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        fixture = Fixture(nursery)
        client, accepted = socket_pair()
        async with client:
            await on_hub(fixture.relay.serve)(accepted)
            assert trio.current_time() == pytest.approx(900)
        nursery.cancel_scope.cancel()


async def test_every_descriptor_is_back_after_resets_from_either_side() -> None:
    async with ingress() as (fixture, address):
        before = open_descriptors()
        for number in range(20):
            client = await trio.open_tcp_stream(*address)
            enclave = await fixture.accepted.receive()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            for stream in (client, enclave) if number % 2 else (enclave, client):
                await trio.aclose_forcefully(stream)
            await trio.testing.wait_all_tasks_blocked(0.01)
        assert fixture.errors == []
        assert open_descriptors() == before


async def test_one_address_has_so_many_connections_and_the_next_is_closed_at_once() -> None:
    async with ingress(limits=Limits(ingress_connections_per_address=2)) as (fixture, address):
        first, second = [await trio.open_tcp_stream(*address) for _ in range(2)]
        near, other = [await fixture.accepted.receive() for _ in range(2)]
        assert await is_closed(address)
        (error,) = fixture.errors
        assert isinstance(error, Refused)
        assert error.reason == "address_limit"
        await first.aclose()
        assert await near.receive_some(100)
        await near.aclose()
        await trio.testing.wait_all_tasks_blocked(0.01)
        async with await trio.open_tcp_stream(*address):
            await fixture.accepted.receive()
        await second.aclose()
        await other.aclose()


async def test_a_64_of_ipv6_counts_as_one_address() -> None:
    async with ingress("::1", limits=Limits(ingress_connections_per_address=1)) as (fixture, address):
        async with await trio.open_tcp_stream(*address):
            await fixture.accepted.receive()
            assert await is_closed(address)
        assert [str(error) for error in fixture.errors] == [":: has 1 connections already [address_limit]"]
