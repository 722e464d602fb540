"""The resolver over real sockets: many who ask, none who is in another's way."""

import socket
from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from runtime.enclave.traffic.resolver import Lookup, LoopbackNames
from runtime.enclave.traffic.resolver_serve import IDLE, Resolve, resolver, serve_datagrams, serve_stream
from runtime.protocol.errors import Malformed
from tests.egress.dns_checks import CHECKS
from tests.egress.packets import ask, read
from tests.egress.policies import policy

POLICY = policy()


def frame(message: bytes) -> bytes:
    return len(message).to_bytes(2, "big") + message


def answering(lookups: list[Lookup] | None = None, *, is_link_up: bool = True) -> Resolve:
    kept: list[Lookup] = [] if lookups is None else lookups
    return resolver(POLICY, LoopbackNames(POLICY.exact_names()), is_link_up=lambda: is_link_up, record=kept.append)


@pytest.fixture
async def server(nursery: trio.Nursery) -> AsyncIterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        await nursery.start(serve_datagrams, bound, answering())
        yield bound
        nursery.cancel_scope.cancel()


async def exchange(client: trio.socket.SocketType, data: bytes, place: tuple[str, int]) -> bytes:
    await client.sendto(data, place)
    with trio.fail_after(60):
        found: bytes = await client.recv(4096)
    return found


async def test_datagrams_are_answered_to_who_asked(server: socket.socket) -> None:
    place = server.getsockname()
    with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one, trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as two:
        assert read(await exchange(one, ask("api.example.com", identity=1), place)).id == 1
        found = read(await exchange(two, ask("evil.test", identity=2), place))
        assert (found.id, found.code) == (2, 5)


async def test_what_deserves_no_answer_is_in_nobodys_way(server: socket.socket) -> None:
    place = server.getsockname()
    with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        for check in CHECKS:
            if check.code is None or len(check.data) > 4096:
                await client.sendto(check.data, place)
                if check.code is not None:
                    assert read(await client.recv(4096)).code == check.code
        with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
            for number in range(200):
                await gone.sendto(ask("api.example.com", identity=number), place)
        assert read(await exchange(client, ask("api.example.com", identity=7), place)).id == 7


async def test_a_connection_may_ask_many_times_at_once_and_in_pieces() -> None:
    lookups: list[Lookup] = []
    client, end = trio.testing.memory_stream_pair()
    questions = [ask(name, identity=number) for number, name in enumerate(("api.example.com", "evil.test", "www.example.org"))]
    stream = b"".join(map(frame, questions))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_stream, end, answering(lookups))
        for index in range(len(stream)):
            await client.send_all(stream[index : index + 1])
        await client.send_eof()
        received = b""
        while len(received) < 2 or received.count(b"\xc0\x0c") != 2:
            received += await client.receive_some()
    found = []
    while received:
        size = int.from_bytes(received[:2], "big")
        found.append(read(received[2 : 2 + size]))
        received = received[2 + size :]
    assert [(each.id, each.code) for each in found] == [(0, 0), (1, 5), (2, 0)]
    assert [lookup.reason for lookup in lookups] == ["allowed", "name_not_allowed", "allowed"]


async def test_a_connection_that_is_silent_slow_or_does_not_read_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    for sent in (b"", b"\0", b"\0\x21", b"\0\x21" + ask("api.example.com")[:20]):
        client, end = trio.testing.memory_stream_pair()
        begun = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_stream, end, answering())
            if sent:
                await client.send_all(sent)
        assert trio.current_time() - begun == pytest.approx(IDLE)
    reader, unread = trio.testing.lockstep_stream_pair()
    begun = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_stream, unread, answering())
        await reader.send_all(frame(ask("api.example.com")))
    assert trio.current_time() - begun == pytest.approx(IDLE)


NO_ANSWER = (b"\xff\xff", b"\x10\x01", frame(b""), frame(bytes(11)), frame(ask("a.example", flags=0x8180)))


@pytest.mark.parametrize("sent", NO_ANSWER, ids=range(len(NO_ANSWER)))
async def test_what_deserves_no_answer_ends_its_connection(sent: bytes) -> None:
    client, end = trio.testing.memory_stream_pair()
    await client.send_all(sent)
    with trio.fail_after(60):
        await serve_stream(end, answering())
    await end.aclose()
    assert await client.receive_some() == b""


async def test_a_connection_that_ends_inside_a_message_is_told_from_one_that_ends() -> None:
    for sent, is_whole in ((b"", True), (b"\0", False), (b"\0\x21abc", False)):
        client, end = trio.testing.memory_stream_pair()
        if sent:
            await client.send_all(sent)
        await client.send_eof()
        if is_whole:
            await serve_stream(end, answering())
        else:
            with pytest.raises(Malformed) as fault:
                await serve_stream(end, answering())
            assert fault.value.reason == "truncated"


async def test_while_the_link_is_down_every_allowed_name_is_a_failure_that_may_be_tried_again() -> None:
    lookups: list[Lookup] = []
    answer = answering(lookups, is_link_up=False)
    for name, code in (("api.example.com", 2), ("evil.test", 5)):
        found = answer(ask(name), False)
        assert found is not None
        assert read(found).code == code
    assert [lookup.reason for lookup in lookups] == ["link_down", "name_not_allowed"]
