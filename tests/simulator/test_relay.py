"""Relaying: half-close, aborts, deadlines, and nothing left open."""

import random
import socket
import struct
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeAlias

import pytest
import trio
import trio.testing

from runtime.net.endpoint import Tcp, bound, connect, listen
from runtime.net.tls import TlsStream, client_context, server_context
from runtime.simulator.relay import Relayed, relay
from tests.support.certificates import make_ca
from tests.support.sockets import open_descriptors, socket_pair

NOW = datetime(2026, 11, 20, tzinfo=UTC)


class Relaying:
    """A relay between two streams in the background; `result` once it ended."""

    def __init__(
        self,
        nursery: trio.Nursery,
        left: trio.abc.HalfCloseableStream,
        right: trio.abc.HalfCloseableStream,
        *,
        linger: float = 60.0,
        idle: float | None = None,
    ) -> None:
        self._done = trio.Event()
        self._result: Relayed | None = None

        async def run() -> None:
            self._result = await relay(left, right, linger=linger, idle=idle)
            self._done.set()

        nursery.start_soon(run)

    async def result(self) -> Relayed:
        await self._done.wait()
        assert self._result is not None
        return self._result


Pair: TypeAlias = tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]


def memory_pair() -> Pair:
    return trio.testing.memory_stream_pair()


async def tcp_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    async with await listen(Tcp("127.0.0.1", 0)) as listener:
        near = await connect(bound(listener))
        return near, await listener.accept()


def reset(stream: trio.SocketStream) -> None:
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


@pytest.mark.parametrize("pair", [memory_pair, socket_pair], ids=["memory", "sockets"])
async def test_a_mebibyte_each_way_at_once_arrives_whole(pair: Callable[[], Pair], nursery: trio.Nursery) -> None:
    client, left = pair()
    right, server = pair()
    relaying = Relaying(nursery, left, right)
    generator = random.Random(1)
    forth, back = generator.randbytes(1 << 20), generator.randbytes((1 << 20) + 1)

    async def talk(stream: trio.abc.HalfCloseableStream, data: bytes, expected: bytes) -> None:
        async with trio.open_nursery() as talking:

            async def send() -> None:
                await stream.send_all(data)
                await stream.send_eof()

            talking.start_soon(send)
            received = bytearray()
            while chunk := await stream.receive_some(70_000):
                received += chunk
            assert received == expected

    async with trio.open_nursery() as talking:
        talking.start_soon(talk, client, forth, back)
        talking.start_soon(talk, server, back, forth)
    assert await relaying.result() == Relayed(left_to_right=len(forth), right_to_left=len(back), ending="eof")
    await client.aclose()
    await server.aclose()


@pytest.mark.parametrize("pair", [memory_pair, socket_pair], ids=["memory", "sockets"])
async def test_a_half_closing_client_gets_its_answer(pair: Callable[[], Pair], nursery: trio.Nursery) -> None:
    client, left = pair()
    right, server = pair()
    relaying = Relaying(nursery, left, right)
    await client.send_all(b"question")
    await client.send_eof()
    assert await server.receive_some() == b"question"
    assert await server.receive_some() == b""
    await server.send_all(b"answer")
    assert await client.receive_some() == b"answer"
    await server.aclose()
    assert await client.receive_some() == b""
    assert await relaying.result() == Relayed(left_to_right=8, right_to_left=6, ending="eof")
    await client.aclose()


@pytest.mark.parametrize("side", ["left", "right"])
async def test_after_one_end_the_other_has_its_time_and_no_more(
    side: str, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    client, left = memory_pair()
    right, server = memory_pair()
    ends, silent = (client, server) if side == "left" else (server, client)
    relaying = Relaying(nursery, left, right, linger=7.0)
    await trio.sleep(100)
    await ends.send_eof()
    started = trio.current_time()
    assert (await relaying.result()).ending == "linger"
    assert trio.current_time() - started == pytest.approx(7.0)
    assert await silent.receive_some() == b""
    with pytest.raises(trio.BrokenResourceError):
        await silent.send_all(b"x")


async def test_traffic_after_one_end_does_not_lengthen_the_others_time(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    client, left = memory_pair()
    right, server = memory_pair()
    relaying = Relaying(nursery, left, right, linger=7.0, idle=5.0)
    await client.send_eof()
    started = trio.current_time()
    for _ in range(3):
        await trio.sleep(2)
        await server.send_all(b"x")
    assert (await relaying.result()) == Relayed(left_to_right=0, right_to_left=3, ending="linger")
    assert trio.current_time() - started == pytest.approx(7.0)


async def test_without_a_byte_either_way_it_ends(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    client, left = memory_pair()
    right, server = memory_pair()
    relaying = Relaying(nursery, left, right, idle=30.0)
    for sender, receiver in ((client, server), (server, client)):
        await trio.sleep(29)
        await sender.send_all(b"x")
        assert await receiver.receive_some() == b"x"
    started = trio.current_time()
    assert await relaying.result() == Relayed(left_to_right=1, right_to_left=1, ending="idle")
    assert trio.current_time() - started == pytest.approx(30.0)
    assert await client.receive_some() == b""


async def test_a_receiver_that_takes_nothing_is_idle(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    client, left = trio.testing.lockstep_stream_pair()
    right, server = trio.testing.lockstep_stream_pair()
    relaying = Relaying(nursery, left, right, idle=30.0)
    await client.send_all(b"x")
    assert (await relaying.result()).ending == "idle"
    assert trio.current_time() == pytest.approx(30.0)
    await server.aclose()


async def test_without_an_idle_time_silence_is_allowed(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    client, left = memory_pair()
    right, server = memory_pair()
    Relaying(nursery, left, right)
    await trio.sleep(1_000_000)
    await client.send_all(b"late")
    assert await server.receive_some() == b"late"


@pytest.mark.parametrize("side", ["left", "right"])
async def test_a_reset_is_handed_on_as_a_reset(side: str, nursery: trio.Nursery) -> None:
    client, left = await tcp_pair()
    right, server = await tcp_pair()
    relaying = Relaying(nursery, left, right)
    resets, other = (client, server) if side == "left" else (server, client)
    await resets.send_all(b"half a mess")
    assert await other.receive_some() == b"half a mess"
    reset(resets)
    with pytest.raises(trio.BrokenResourceError):
        await other.receive_some()
    assert (await relaying.result()).ending == "broken"
    await other.aclose()


async def test_a_tls_stream_without_close_notify_is_handed_on_as_a_reset(nursery: trio.Nursery) -> None:
    ca = make_ca("root", NOW)
    raw_client, raw_left = socket_pair()
    right, server = await tcp_pair()
    accepted: list[TlsStream] = []

    async def accept() -> None:
        accepted.append(await TlsStream.accept(raw_left, server_context([ca.issue(("a.example",))])))

    async with trio.open_nursery() as handshakes:
        handshakes.start_soon(accept)
        client = await TlsStream.connect(raw_client, client_context([ca.certificate], now=NOW), server_name="a.example")
    relaying = Relaying(nursery, accepted[0], right)
    await client.send_all(b"delete /tmp")
    assert await server.receive_some() == b"delete /tmp"
    await raw_client.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await server.receive_some()
    assert (await relaying.result()).ending == "broken"
    await server.aclose()


async def test_an_answer_that_came_before_the_server_stopped_reading_is_delivered(nursery: trio.Nursery) -> None:
    client, left = socket_pair()
    right, server = socket_pair(send_buffer=4096)
    await server.send_all(b"413, go away")
    await server.aclose()
    await client.send_all(bytes(50_000))
    relaying = Relaying(nursery, left, right)
    assert await client.receive_some() == b"413, go away"
    with trio.fail_after(60):
        await relaying.result()
    await client.aclose()


async def test_a_stream_that_takes_no_more_and_says_nothing_is_not_waited_for_long(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    client, left = memory_pair()
    right_receives, server_sends = trio.testing.memory_stream_one_way_pair()[::-1]
    right_sends, server_receives = trio.testing.memory_stream_one_way_pair()
    right = trio.StapledStream(right_sends, right_receives)
    relaying = Relaying(nursery, left, right)
    await server_receives.aclose()
    await client.send_all(b"x")
    assert await relaying.result() == Relayed(left_to_right=0, right_to_left=0, ending="broken")
    assert trio.current_time() == pytest.approx(1.0)
    assert await client.receive_some() == b""
    await server_sends.aclose()


async def test_cancelled_it_closes_both(autojump_clock: trio.testing.MockClock) -> None:
    before = open_descriptors()
    client, left = socket_pair()
    right, server = socket_pair()
    with trio.move_on_after(5) as scope:
        await relay(left, right)
    assert scope.cancelled_caught
    assert await client.receive_some() == b""
    assert await server.receive_some() == b""
    await client.aclose()
    await server.aclose()
    assert open_descriptors() == before


async def test_two_hundred_resets_leave_no_descriptor(nursery: trio.Nursery) -> None:
    before = open_descriptors()
    for number in range(200):
        client, left = await tcp_pair()
        right, server = await tcp_pair()
        relaying = Relaying(nursery, left, right)
        await client.send_all(b"x")
        await server.receive_some()
        reset(client if number % 2 else server)
        assert (await relaying.result()).ending == "broken"
        await (server if number % 2 else client).aclose()
    assert open_descriptors() == before


async def test_other_errors_are_bugs_and_propagate() -> None:
    async def fail() -> None:
        raise KeyError("bug")

    _, left = memory_pair()
    right = trio.StapledStream(trio.testing.MemorySendStream(), trio.testing.MemoryReceiveStream(receive_some_hook=fail))
    with pytest.RaisesGroup(KeyError):
        await relay(left, right)
    with pytest.raises(trio.ClosedResourceError):
        await left.receive_some()
