"""Relays on a hub: half-close, aborts, deadlines, back-pressure, and nothing left open."""

import random
import resource
import socket

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from runtime.net.hub import Work
from runtime.net.hub_relay import Means, Relayed, relay
from runtime.net.hub_socket import Plain, detached
from runtime.net.openssl import WANT_WRITE, TlsSocket
from runtime.net.tls import TlsStream
from tests.support.hubs import reset, running_hub
from tests.support.relaying import KINDS, SIDES, Pair, all_of, is_reset, relaying, tcp_pair, unix_pair
from tests.support.sockets import open_descriptors


@pytest.mark.parametrize("side", SIDES)
async def test_a_reset_is_handed_on_as_a_reset(side: str) -> None:
    async with relaying() as running:
        resets, other = running.sides(side)
        await resets.send_all(b"half a mess")
        assert await other.receive_some(100) == b"half a mess"
        assert isinstance(resets, trio.SocketStream)
        reset(resets)
        assert await is_reset(other)
        assert (await running.result()).ending == "broken"


async def test_a_tls_client_without_close_notify_is_handed_on_as_a_reset() -> None:
    async with relaying(is_tls=True) as running:
        await running.client.send_all(b"delete /tmp")
        assert await running.server.receive_some(100) == b"delete /tmp"
        await trio.aclose_forcefully(running.client)
        assert await is_reset(running.server)
        assert (await running.result()).ending == "broken"


async def test_a_server_that_is_reset_ends_the_tls_client_without_close_notify() -> None:
    async with relaying(is_tls=True) as running:
        await running.server.send_all(b"half an ans")
        assert await running.client.receive_some(100) == b"half an ans"
        reset(running.server)
        assert await is_reset(running.client)
        assert (await running.result()).ending == "broken"


async def test_bytes_that_are_no_tls_are_handed_on_as_a_reset() -> None:
    async with relaying(is_tls=True) as running:
        assert isinstance(running.client, TlsStream)
        await running.client._stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
        assert await is_reset(running.server)
        assert (await running.result()).ending == "broken"


@KINDS
@pytest.mark.parametrize("side", SIDES)
async def test_whoever_ends_its_half_gets_the_rest_of_the_others(pair: Pair, side: str, *, is_tls: bool) -> None:
    async with relaying(pair, is_tls=is_tls) as running:
        ends, other = running.sides(side)
        await ends.send_all(b"question")
        await ends.send_eof()
        assert await all_of(other) == b"question"
        await other.send_all(b"answer")
        await other.send_eof()
        assert await all_of(ends) == b"answer"
        forth, back = (8, 6) if side == "left" else (6, 8)
        assert await running.result() == Relayed(left_to_right=forth, right_to_left=back, ending="eof")


@KINDS
async def test_four_mebibytes_each_way_at_once_arrive_whole(pair: Pair, *, is_tls: bool) -> None:
    generator = random.Random(1)
    forth, back = generator.randbytes(4 << 20), generator.randbytes((4 << 20) + 1)

    async def send(stream: trio.abc.HalfCloseableStream, data: bytes) -> None:
        await stream.send_all(data)
        await stream.send_eof()

    async def expect(stream: trio.abc.HalfCloseableStream, data: bytes) -> None:
        assert await all_of(stream) == data

    async with relaying(pair, is_tls=is_tls) as running:
        async with trio.open_nursery() as talking:
            talking.start_soon(send, running.client, forth)
            talking.start_soon(send, running.server, back)
            talking.start_soon(expect, running.client, back)
            talking.start_soon(expect, running.server, forth)
        assert await running.result() == Relayed(left_to_right=len(forth), right_to_left=len(back), ending="eof")


@KINDS
@pytest.mark.parametrize("side", SIDES)
async def test_64_mebibytes_to_a_slow_reader_take_constant_memory(pair: Pair, side: str, *, is_tls: bool) -> None:
    size, piece = 64 << 20, bytes(range(256)) * 1024
    async with relaying(pair, is_tls=is_tls) as running:
        sender, reader = running.sides(side)

        async def send() -> None:
            for _ in range(size // len(piece)):
                await sender.send_all(piece)
            await sender.send_eof()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await trio.testing.wait_all_tasks_blocked(0.02)  # everything in between is full
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            received = 0
            while data := await reader.receive_some(100_000):
                assert data[0] == received % 256
                received += len(data)
        assert received == size
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 * 1024  # KiB
        await reader.send_eof()
        assert (await running.result()).ending == "eof"


@KINDS
async def test_while_one_direction_is_full_the_other_moves(pair: Pair, *, is_tls: bool) -> None:
    async with relaying(pair, is_tls=is_tls) as running, trio.open_nursery() as nursery:
        nursery.start_soon(running.server.send_all, bytes(32 << 20))
        await trio.testing.wait_all_tasks_blocked(0.02)
        for number in range(100):
            await running.client.send_all(b"%d " % number)
        await running.client.send_eof()
        assert await all_of(running.server) == b"".join(b"%d " % number for number in range(100))
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("records", [1, 15, 16, 60, 63, 64])
async def test_an_end_that_comes_behind_full_records_is_handed_on_without_the_sockets_own(records: int) -> None:
    async with relaying(is_tls=True) as running, trio.open_nursery() as nursery:
        data = bytes(16 * 1024) * records

        async def send() -> None:
            assert isinstance(running.client, TlsStream)
            await running.client.send_all(data)
            await running.client.send_eof()

        nursery.start_soon(send)
        with trio.fail_after(30):
            assert await all_of(running.server) == data


@pytest.mark.parametrize("side", SIDES)
async def test_after_one_end_the_other_has_its_time_and_no_more(side: str, autojump_clock: MockClock) -> None:
    async with relaying(unix_pair, linger=7.0) as running:
        await trio.sleep(100)
        ends, silent = running.sides(side)
        await ends.send_eof()
        begun = trio.current_time()
        assert (await running.result()).ending == "linger"
        assert trio.current_time() - begun == pytest.approx(7.0, abs=0.1)
        assert await silent.receive_some(1) == b""


async def test_traffic_after_one_end_does_not_lengthen_the_others_time(autojump_clock: MockClock) -> None:
    async with relaying(unix_pair, linger=7.0, idle=5.0) as running:
        await running.client.send_eof()
        begun = trio.current_time()
        for _ in range(3):
            await trio.sleep(2)
            await running.server.send_all(b"x")
        assert await running.result() == Relayed(left_to_right=0, right_to_left=3, ending="linger")
        assert trio.current_time() - begun == pytest.approx(7.0, abs=0.1)


@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "tls"])
async def test_without_a_byte_either_way_it_ends(autojump_clock: MockClock, *, is_tls: bool) -> None:
    async with relaying(unix_pair, is_tls=is_tls, idle=30.0) as running:
        for sender, receiver in (running.sides("left"), running.sides("right")):
            await trio.sleep(29)
            await sender.send_all(b"x")
            assert await receiver.receive_some(10) == b"x"
        begun = trio.current_time()
        assert await running.result() == Relayed(left_to_right=1, right_to_left=1, ending="idle")
        assert trio.current_time() - begun == pytest.approx(30.0, abs=0.1)
        assert await running.client.receive_some(1) == b""


async def test_without_an_idle_time_silence_is_allowed(autojump_clock: MockClock) -> None:
    async with relaying(unix_pair) as running:
        await trio.sleep(1_000_000)
        await running.client.send_all(b"late")
        assert await running.server.receive_some(10) == b"late"


async def test_a_receiver_that_takes_nothing_is_idle(autojump_clock: MockClock) -> None:
    async with relaying(unix_pair, idle=30.0) as running:
        with pytest.raises(trio.BrokenResourceError):
            await running.client.send_all(bytes(8 << 20))
        assert (await running.result()).ending == "idle"
        assert trio.current_time() == pytest.approx(30.0, abs=0.1)


@pytest.mark.parametrize("pair", [tcp_pair, unix_pair])
@pytest.mark.parametrize("side", SIDES)
async def test_who_takes_nothing_of_one_that_has_left_is_not_kept_for_long(
    pair: Pair, side: str, autojump_clock: MockClock
) -> None:
    async with relaying(pair, idle=900.0, linger=20.0) as running:
        leaves, _ = running.sides(side)
        with trio.move_on_after(100):
            await leaves.send_all(bytes(64 << 20))
        left_at = trio.current_time()
        assert isinstance(leaves, trio.SocketStream)
        reset(leaves)
        assert (await running.result()).ending == "idle"
        assert 20.0 <= trio.current_time() - left_at <= 40.1


async def test_who_takes_what_is_left_slowly_gets_all_of_it(autojump_clock: MockClock) -> None:
    async with relaying(unix_pair, idle=900.0, linger=20.0) as running:
        sent = 0
        with trio.move_on_after(100):
            while True:
                sent += await running.server.socket.send(bytes(64 << 10))
        await running.server.aclose()
        assert isinstance(running.client, trio.SocketStream)
        taken = 0
        while data := await running.client.receive_some(64 << 10):
            taken += len(data)
            await trio.sleep(15)
        assert taken == sent


async def test_an_answer_that_came_before_the_server_stopped_reading_is_delivered() -> None:
    async with relaying(unix_pair) as running:
        await running.server.send_all(b"413, go away")
        await running.server.aclose()
        await running.client.send_all(bytes(50_000))
        assert await running.client.receive_some(100) == b"413, go away"
        await running.result()


async def test_a_socket_that_takes_no_more_and_says_nothing_is_not_waited_for_long(autojump_clock: MockClock) -> None:
    async with relaying(unix_pair) as running:
        running.server.socket.shutdown(socket.SHUT_RD)  # a unix peer sees that as "takes no more", and not as an end
        await running.client.send_all(b"x")
        begun = trio.current_time()
        assert await running.result() == Relayed(left_to_right=0, right_to_left=0, ending="broken")
        assert trio.current_time() - begun == pytest.approx(1.0, abs=0.1)
        assert await running.client.receive_some(1) == b""


async def test_what_comes_first_is_sent_first_and_not_counted() -> None:
    async with relaying(first=b"header ") as running:
        await running.client.send_all(b"hello")
        await running.client.send_eof()
        assert await all_of(running.server) == b"header hello"
        await running.server.send_eof()
        assert await running.result() == Relayed(left_to_right=5, right_to_left=0, ending="eof")


async def test_what_comes_first_is_followed_by_an_end_that_was_there_already() -> None:
    client, left = await tcp_pair()
    right, server = await tcp_pair()
    async with client, server, running_hub() as hub:
        await client.send_eof()
        await trio.testing.wait_all_tasks_blocked(0.01)

        async def run(work: Work) -> None:
            with Means() as means:
                await relay(work, Plain(work.hub, detached(left)), Plain(work.hub, detached(right)), means, first=b"header")

        hub.start(run)
        assert await all_of(server) == b"header"


async def test_what_comes_first_is_not_taken_for_whole_when_its_source_was_reset_already() -> None:
    client, left = await tcp_pair()
    right, server = await tcp_pair()
    async with server, running_hub() as hub:
        reset(client)
        await trio.testing.wait_all_tasks_blocked(0.01)

        async def run(work: Work) -> None:
            with Means() as means:
                await relay(work, Plain(work.hub, detached(left)), Plain(work.hub, detached(right)), means, first=b"header")

        hub.start(run)
        assert await is_reset(server)


async def test_what_comes_first_is_sent_to_who_waits_for_it() -> None:
    async with relaying(first=b"header") as running:
        assert await running.server.receive_some(100) == b"header"


@KINDS
@pytest.mark.parametrize("is_bulk", [False, True], ids=["small", "bulk"])
async def test_two_hundred_resets_leave_no_descriptor(pair: Pair, *, is_tls: bool, is_bulk: bool) -> None:
    before = open_descriptors()
    with Means() as means:
        for number in range(200 if not is_tls else 40):
            async with relaying(pair, is_tls=is_tls, means=means) as running:
                await running.client.send_all(b"x")
                await running.server.receive_some(1)
                if is_bulk:
                    with trio.move_on_after(0.001):
                        await running.client.send_all(bytes(8 << 20))
                for stream in running.sides(SIDES[number % 2]):
                    if isinstance(stream, trio.SocketStream):
                        reset(stream)
                    else:
                        await trio.aclose_forcefully(stream)
                await running.result()
    assert open_descriptors() == before


async def test_the_end_of_the_hub_aborts_both_ends() -> None:
    before = open_descriptors()
    client, left = await tcp_pair()
    right, server = await tcp_pair()

    async def run(work: Work) -> None:
        with Means() as means:
            await relay(work, Plain(work.hub, detached(left)), Plain(work.hub, detached(right)), means)

    async with running_hub() as hub:
        hub.start(run)
        await client.send_all(b"x")
        assert await server.receive_some(1) == b"x"
    assert await is_reset(client)
    assert await is_reset(server)
    await client.aclose()
    await server.aclose()
    assert open_descriptors() == before


async def test_close_notify_that_finds_no_room_is_sent_when_there_is_some(monkeypatch: pytest.MonkeyPatch) -> None:
    genuine, attempts = TlsSocket.shutdown, 0

    def full_at_first(connection: TlsSocket) -> int:
        nonlocal attempts
        attempts += 1
        return WANT_WRITE if attempts == 1 else genuine(connection)

    monkeypatch.setattr(TlsSocket, "shutdown", full_at_first)
    async with relaying(is_tls=True) as running:
        await running.server.send_all(b"the whole answer")
        await running.server.send_eof()
        assert await all_of(running.client) == b"the whole answer"
        await running.client.send_eof()
        assert (await running.result()).ending == "eof"
