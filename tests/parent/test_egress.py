"""Egress at the parent: both ends of an outbound connection together, and hostile enclaves."""

import errno
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from ipaddress import ip_address

import pytest
import trio
from trio.testing import MockClock

from runtime.enclave.traffic.egress import EgressRefused, open_egress
from runtime.net.endpoint import Tcp, listen
from runtime.net.hub_relay import Means
from runtime.net.hub_socket import detached
from runtime.net.serve import serve
from runtime.parent.config import Egress, Limits
from runtime.parent.egress import EgressRelay, Reason
from runtime.parent.egress_dial import race
from runtime.parent.egress_names import by_system
from runtime.protocol.address_kind import Address
from runtime.protocol.egress_frames import Connect, Connected, RefusalReason, encode_answer, encode_connect
from tests.support.hubs import on_hub
from tests.support.sockets import Wire, open_descriptors, socket_pair


class Network:
    """Names and servers of a test; `dialled` has the addresses that were connected to."""

    def __init__(self) -> None:
        self.names: dict[str, list[str]] = {}
        self.failures: dict[str, OSError] = {}
        self.errors: dict[str, OSError] = {}
        self.hanging: set[str] = set()
        self.dialled: list[str] = []
        self.far_ends: list[trio.SocketStream] = []
        self.resolutions = 0

    async def resolve(self, host: str) -> Sequence[Address]:
        await trio.lowlevel.checkpoint()
        self.resolutions += 1
        if host in self.hanging:
            await trio.sleep_forever()
        if host in self.errors:
            raise self.errors[host]
        if host in self.names:
            return [ip_address(address) for address in self.names[host]]
        return await by_system(host)

    async def attempt(self, address: Address, port: int) -> socket.socket:
        await trio.lowlevel.checkpoint()
        host = str(address)
        self.dialled.append(host)
        if host in self.hanging:
            await trio.sleep_forever()
        if host in self.failures:
            raise self.failures[host]
        near, far = socket_pair()
        self.far_ends.append(far)
        return detached(near)


class Fixture:
    def __init__(self, nursery: trio.Nursery, egress: Egress, limits: Limits) -> None:
        self.network = Network()
        self.means = Means()
        self.refused: list[tuple[str, Reason]] = []
        relay = EgressRelay(
            egress,
            limits,
            self.means,
            refused=lambda request, reason: self.refused.append((request.host, reason)),
            resolve=self.network.resolve,
            dial=partial(race, attempt=self.network.attempt),
        )
        self.numbers = relay.numbers
        self.wire = Wire(nursery, on_hub(relay.serve))

    async def reason(self, host: str, port: int = 443) -> RefusalReason:
        with pytest.raises(EgressRefused) as caught:
            await open_egress(self.wire.connect, host, port)
        return caught.value.reason


@asynccontextmanager
async def parent(egress: Egress | None = None, limits: Limits | None = None) -> AsyncIterator[Fixture]:
    async with trio.open_nursery() as nursery:
        fixture = Fixture(nursery, egress or Egress(), limits or Limits())
        try:
            yield fixture
        finally:
            for far in fixture.network.far_ends:
                far.socket.close()
            fixture.means.pipes.close()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "spelling",
    [
        "169.254.169.254",
        "2852039166",
        "0xa9fea9fe",
        "0xA9.0xFE.0xA9.0xFE",
        "0251.0376.0251.0376",
        "169.254.43518",
        "169.16689662",
        "::ffff:169.254.169.254",
        "::ffff:a9fe:a9fe",
        "0:0:0:0:0:ffff:a9fe:a9fe",
        "::169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::",
        "fd00:ec2::254",
        "FD00:0EC2::0254",
    ],
)
async def test_the_metadata_service_is_refused_in_every_spelling(spelling: str) -> None:
    async with parent() as fixture:
        assert await fixture.reason(spelling, 80) == "forbidden"
        assert fixture.network.dialled == []
        assert fixture.refused == [(spelling, "forbidden")]


@pytest.mark.parametrize(
    "spelling", ["127.1", "0", "0x7f000001", "017700000001", "2130706433", "localhost", "::1", "::ffff:127.0.0.1"]
)
async def test_the_parents_own_loopback_is_refused_in_every_spelling(spelling: str) -> None:
    async with parent() as fixture:
        assert await fixture.reason(spelling) == "forbidden"
        assert fixture.network.dialled == []


async def test_a_name_that_resolves_to_private_addresses_is_refused() -> None:
    async with parent() as fixture:
        fixture.network.names["innocent.example"] = ["169.254.169.254", "10.0.0.1", "::ffff:127.0.0.1"]
        assert await fixture.reason("innocent.example") == "forbidden"
        assert fixture.network.dialled == []


async def test_of_mixed_addresses_only_the_permitted_ones_are_tried_by_address_and_resolved_once() -> None:
    async with parent() as fixture:
        fixture.network.names["mixed.example"] = ["10.0.0.1", "8.8.8.8", "8.8.8.8", "169.254.169.254", "2606:4700::1"]
        fixture.network.failures["8.8.8.8"] = OSError(errno.ENETUNREACH, "no route")
        async with await open_egress(fixture.wire.connect, "mixed.example", 443):
            assert fixture.network.dialled == ["8.8.8.8", "2606:4700::1"]
            assert fixture.network.resolutions == 1


async def test_what_cannot_be_connected_to_has_its_reason(autojump_clock: MockClock) -> None:
    async with parent() as fixture:
        network = fixture.network
        network.names |= {
            "closed.example": ["8.8.8.8"],
            "away.example": ["8.8.4.4"],
            "slow.example": ["1.1.1.1"],
            "none.example": [],
        }
        network.failures["8.8.8.8"] = ConnectionRefusedError(errno.ECONNREFUSED, "refused")
        network.failures["8.8.4.4"] = OSError(errno.EHOSTUNREACH, "no route")
        network.hanging |= {"1.1.1.1", "dns.example"}
        assert await fixture.reason("closed.example") == "refused"
        assert await fixture.reason("away.example") == "unreachable"
        assert await fixture.reason("none.example") == "name_not_found"
        began = trio.current_time()
        assert await fixture.reason("slow.example") == "timeout"
        assert await fixture.reason("dns.example") == "timeout"
        assert trio.current_time() - began == pytest.approx(20)
        network.failures["8.8.8.8"] = TimeoutError(errno.ETIMEDOUT, "no answer")
        assert await fixture.reason("closed.example") == "timeout"


@pytest.mark.parametrize(
    ("error", "reason", "told"),
    [
        (OSError("SERVFAIL everywhere"), "resolver_failed", "unreachable"),
        (socket.gaierror(socket.EAI_AGAIN, "try again"), "resolver_failed", "unreachable"),
        (TimeoutError("silence"), "timeout", "timeout"),
    ],
)
async def test_a_name_that_nobody_could_tell_of_is_no_name_that_is_not_there(error: OSError, reason: Reason, told: str) -> None:
    async with parent() as fixture:
        fixture.network.errors["odd.example"] = error
        assert await fixture.reason("odd.example") == told
        assert fixture.refused == [("odd.example", reason)]
        assert fixture.numbers.refused == {reason: 1}


async def test_one_connection_too_many_is_told_so_at_once_and_the_next_has_its_place() -> None:
    async with parent(limits=Limits(egress_connections=1)) as fixture:
        async with await open_egress(fixture.wire.connect, "8.8.8.8", 443):
            assert await fixture.reason("8.8.4.4") == "unreachable"
            assert fixture.refused == [("8.8.4.4", "too_many")]
            assert fixture.network.dialled == ["8.8.8.8"]
        fixture.network.far_ends.pop().socket.close()
        while fixture.numbers.open:
            await trio.testing.wait_all_tasks_blocked()
        async with await open_egress(fixture.wire.connect, "8.8.4.4", 443):
            assert fixture.numbers.shown() | {"bytes_out": 0} == {
                "open": 1,
                "connected": 2,
                "bytes_out": 0,
                "bytes_in": 0,
                "refused": {"too_many": 1},
            }


async def test_an_address_that_hangs_leaves_time_for_the_next(autojump_clock: MockClock) -> None:
    async with parent() as fixture:
        fixture.network.names["half.example"] = ["1.1.1.1", "8.8.8.8"]
        fixture.network.hanging.add("1.1.1.1")
        async with await open_egress(fixture.wire.connect, "half.example", 443):
            assert fixture.network.dialled == ["1.1.1.1", "8.8.8.8"]
        assert trio.current_time() == pytest.approx(0.25)


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "..", "a..b"])
async def test_a_host_that_no_resolver_takes_is_not_found(host: str) -> None:
    async with parent() as fixture:
        assert await fixture.reason(host) == "name_not_found"


async def test_bytes_flow_both_ways_and_each_end_is_handed_on() -> None:
    async with parent() as fixture, await open_egress(fixture.wire.connect, "8.8.8.8", 443) as enclave:
        [server] = fixture.network.far_ends
        await enclave.send_all(b"request")
        await enclave.send_eof()
        assert [data async for data in server] == [b"request"]
        await server.send_all(b"answer after the end of the request")
        await server.send_eof()
        received = b"".join([bytes(data) async for data in enclave])
        assert received == b"answer after the end of the request"


@pytest.mark.parametrize("step", [1, 3, 1000])
async def test_bytes_that_came_with_the_connect_frame_are_forwarded(step: int) -> None:
    async with parent() as fixture:
        enclave = await fixture.wire.connect()
        async with enclave:
            data = encode_connect(Connect(host="8.8.8.8", port=25)) + b"EHLO"
            for start in range(0, len(data), step):
                await enclave.send_all(data[start : start + step])
                await trio.testing.wait_all_tasks_blocked()
            await enclave.send_eof()
            assert await enclave.receive_some(100) == encode_answer(Connected())
            assert b"".join([bytes(piece) async for piece in fixture.network.far_ends[0]]) == b"EHLO"


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff\xff\xff",
        b"\x00\x00\x02\x01" + bytes(0x201),
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x00\x00\x00\x00",
        encode_answer(Connected()),
        encode_connect(Connect(host="8.8.8.8", port=443)).replace(b"8.8.8.8", b"8 8.8.8"),
    ],
)
async def test_anything_but_a_connect_frame_ends_the_connection(data: bytes) -> None:
    async with parent() as fixture, await fixture.wire.connect() as enclave:
        await enclave.send_all(data)
        received = b"nothing"
        with suppress(trio.BrokenResourceError):  # closed over unread bytes
            received = bytes(await enclave.receive_some(1))
        assert received in {b"", b"nothing"}
        assert fixture.network.resolutions == 0


async def test_a_connect_frame_that_does_not_end_is_cut_off(autojump_clock: MockClock) -> None:
    frame = encode_connect(Connect(host="8.8.8.8", port=443))
    async with parent() as fixture:
        for size in range(len(frame)):
            async with await fixture.wire.connect() as enclave:
                await enclave.send_all(frame[:size])
                assert await enclave.receive_some(1) == b""
        assert fixture.network.dialled == []
        assert trio.current_time() == pytest.approx(10 * len(frame))


async def test_every_descriptor_is_back_after_resets_and_refusals() -> None:
    async with parent() as fixture:
        before = open_descriptors()
        for number in range(30):
            if number % 3 == 0:
                assert await fixture.reason("10.0.0.1") == "forbidden"
            enclave = await open_egress(fixture.wire.connect, "8.8.8.8", 443)
            far = fixture.network.far_ends.pop()
            await enclave.send_all(b"unread")
            for stream in (enclave, far) if number % 2 else (far, enclave):
                await trio.aclose_forcefully(stream)
            await trio.testing.wait_all_tasks_blocked()
        assert fixture.wire.ended == fixture.wire.connections
        assert open_descriptors() == before


async def test_a_real_server_on_loopback_is_reached_when_the_config_allows_it() -> None:
    async with trio.open_nursery() as nursery:
        listener = await listen(Tcp("127.0.0.1", 0))

        async def echo(stream: trio.SocketStream) -> None:
            async for data in stream:
                await stream.send_all(data)

        await nursery.start(lambda task_status: serve(listener, echo, limit=1, task_status=task_status))
        refused: list[Reason] = []
        relay = EgressRelay(Egress(allow_loopback=True), Limits(), Means(), refused=lambda _, reason: refused.append(reason))
        wire = Wire(nursery, on_hub(relay.serve))
        port = listener.socket.getsockname()[1]
        async with await open_egress(wire.connect, "127.0.0.1", port) as stream:
            await stream.send_all(b"hello")
            assert await stream.receive_some(100) == b"hello"
        await listener.aclose()
        with pytest.raises(EgressRefused) as caught:
            await open_egress(wire.connect, "127.0.0.1", port)
        assert caught.value.reason == "refused"
        assert refused == ["refused"]
        nursery.cancel_scope.cancel()
