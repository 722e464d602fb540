"""When a connection to the customer process serves another request, and when a request is made again."""

from pathlib import Path

import pytest
import trio
import trio.testing

from tests.enclave.traffic.harness import GET, OK, POST, Peer, Script, answering, ingress


async def test_requests_of_one_client_share_one_connection_to_the_application(tmp_path: Path) -> None:
    async with ingress(tmp_path, answering(OK, OK, OK)) as gate, gate.client() as client:
        for _ in range(3):
            await client.send(GET)
            assert await client.answer() == (200, {"content-length": "2"}, b"ok")
        assert len(gate.upstreams) == 1


async def test_another_client_may_use_it_when_nothing_is_under_way(tmp_path: Path) -> None:
    async with ingress(tmp_path, answering(OK, OK)) as gate:
        for _ in range(2):
            async with gate.client() as client:
                await client.send(GET)
                assert (await client.answer())[2] == b"ok"
        assert len(gate.upstreams) == 1


async def test_two_requests_at_once_never_share_it(tmp_path: Path) -> None:
    async with ingress(tmp_path, answering(OK)) as gate, gate.client() as one, gate.client() as other:
        await one.send(POST + b"Content-Length: 1\r\n\r\n")
        await trio.testing.wait_all_tasks_blocked()
        await other.send(POST + b"Content-Length: 1\r\n\r\n")
        for client in (one, other):
            await client.send(b"x")
            assert (await client.answer())[2] == b"ok"
        assert len(gate.upstreams) == 2


@pytest.mark.parametrize("answer", [OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), OK, OK.replace(b"1.1", b"1.0")])
async def test_an_application_that_closes_after_each_answer_is_connected_to_again(tmp_path: Path, answer: bytes) -> None:
    async with ingress(tmp_path, answering(answer, close=True)) as gate, gate.client() as client:
        for _ in range(3):
            await client.send(GET)
            assert await client.answer() == (200, {"content-length": "2"}, b"ok")
            await trio.testing.wait_all_tasks_blocked()
        assert len(gate.upstreams) == 3


async def test_bytes_that_follow_an_answer_never_become_the_next_one(tmp_path: Path) -> None:
    poisoned = OK + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
    async with ingress(tmp_path, answering(poisoned)) as gate, gate.client() as client:
        for _ in range(2):
            await client.send(GET)
            assert (await client.answer())[2] == b"ok"
        assert len(gate.upstreams) == 2


async def test_bytes_that_come_later_between_two_requests_never_become_the_next_answer(tmp_path: Path) -> None:
    late = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.until(b"\r\n\r\n")
        await peer.send(OK)
        await late.wait()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
        await peer.to_end()

    async with ingress(tmp_path, script) as gate, gate.client() as client:
        await client.send(GET)
        assert (await client.answer())[2] == b"ok"
        late.set()
        await trio.testing.wait_all_tasks_blocked()
        await client.send(GET)
        assert (await client.answer())[2] == b"ok"
        assert len(gate.upstreams) == 2


def dying_on_the_second(partial: bytes = b"") -> Script:
    """Every connection answers its first request, and dies of its second."""

    async def script(peer: Peer) -> None:
        await peer.until(b"\r\n\r\n")
        await peer.send(OK)
        await peer.until(b"\r\n\r\n")
        if partial:
            await peer.send(partial)

    return script


async def test_an_idempotent_request_to_a_kept_connection_that_dies_is_made_once_more(tmp_path: Path) -> None:
    async with ingress(tmp_path, dying_on_the_second()) as gate, gate.client() as client:
        for _ in range(3):
            await client.send(GET)
            assert (await client.answer())[2] == b"ok"
        assert len(gate.upstreams) == 3


@pytest.mark.parametrize(
    "request_bytes",
    [
        POST + b"Content-Length: 0\r\n\r\n",
        POST + b"Content-Length: 2\r\n\r\nxx",
        b"PUT / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 2\r\n\r\nxx",
    ],
)
async def test_a_request_that_may_have_been_carried_out_is_not_made_again(tmp_path: Path, request_bytes: bytes) -> None:
    async with ingress(tmp_path, dying_on_the_second()) as gate, gate.client() as client:
        await client.send(GET)
        assert (await client.answer())[2] == b"ok"
        await client.send(request_bytes)
        assert (await client.answer())[0] == 502
        assert len(gate.upstreams) == 1


async def test_a_request_to_which_anything_came_back_is_not_made_again(tmp_path: Path) -> None:
    async with ingress(tmp_path, dying_on_the_second(b"HTTP/1.1 2")) as gate, gate.client() as client:
        await client.send(GET)
        assert (await client.answer())[2] == b"ok"
        await client.send(GET)
        assert (await client.answer())[0] == 502
        assert len(gate.upstreams) == 1


async def test_a_request_on_a_new_connection_is_made_once(tmp_path: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.until(b"\r\n\r\n")

    async with ingress(tmp_path, script) as gate, gate.client() as client:
        await client.send(GET)
        assert (await client.answer())[0] == 502
        assert len(gate.upstreams) == 1
