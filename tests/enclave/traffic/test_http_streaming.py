"""Bodies and answers while they are under way: what is handed on at once, what ends what, and in how much memory."""

from contextlib import suppress
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.enclave.traffic.harness import CHUNKED, GET, OK, POST, App, Peer, ingress


async def test_an_event_arrives_when_it_is_sent_and_not_when_the_answer_ends(tmp_path: Path) -> None:
    arrived = [trio.Event() for _ in range(3)]

    async def script(peer: Peer) -> None:
        await peer.until(b"\r\n\r\n")
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n" + CHUNKED)
        for event in arrived:
            await peer.send(b"9\r\ndata: x\n\n\r\n")
            await event.wait()
        await peer.send(b"0\r\n\r\n")

    async with ingress(tmp_path, script) as gate, gate.client() as client:
        await client.send(GET)
        with trio.fail_after(60):
            await client.until(b"\r\n\r\n")
            for event in arrived:
                assert await client.until(b"\n\n\r\n") == b"9\r\ndata: x\n\n\r\n"
                event.set()
            assert await client.until(b"0\r\n\r\n") == b"0\r\n\r\n"


async def test_an_answer_may_begin_and_go_on_while_its_request_does(tmp_path: Path) -> None:
    async def echo(peer: Peer) -> None:
        await peer.until(b"\r\n\r\n")
        await peer.send(b"HTTP/1.1 200 OK\r\n" + CHUNKED)
        while True:
            chunk = await peer.until(b"\r\n") + await peer.until(b"\r\n")
            await peer.send(chunk)
            if chunk.startswith(b"0"):
                return

    async with ingress(tmp_path, echo) as gate, gate.client() as client:
        await client.send(POST + CHUNKED)
        with trio.fail_after(60):
            await client.until(b"\r\n\r\n")
            for number in range(5):
                await client.send(b"2\r\n%02d\r\n" % number)
                assert await client.until(b"%02d\r\n" % number) == b"2\r\n%02d\r\n" % number
            await client.send(b"0\r\n\r\n")
            assert await client.to_end() == b"0\r\n\r\n"


async def test_an_early_answer_ends_the_request_and_the_connection(tmp_path: Path) -> None:
    ended = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.until(b"\r\n\r\n")
        await peer.send(b"HTTP/1.1 413 Too Much\r\nContent-Length: 2\r\n\r\nno")
        assert b"unsent" not in await peer.to_end()
        ended.set()

    async with ingress(tmp_path, script) as gate, gate.client() as client:
        await client.send(POST + b"Content-Length: 1000000\r\n\r\n" + b"x" * 1000)
        with trio.fail_after(60):
            status, fields, body = await client.answer()
            assert (status, fields["connection"], body) == (413, "close", b"no")
            await ended.wait()
            await client.send(GET)
            assert await client.to_end() == b""
        assert len(gate.upstreams) == 1


@pytest.mark.parametrize("size", range(20_000, 420_000, 20_000))
async def test_no_request_follows_one_of_which_the_application_has_not_read_everything(tmp_path: Path, size: int) -> None:
    """For some sizes the last piece is still on its way when the answer comes, although the client has sent all of it."""

    async def script(peer: Peer) -> None:
        await peer.until(b"\r\n\r\n")
        await trio.testing.wait_all_tasks_blocked(0.005)
        await peer.send(OK)
        with suppress(AssertionError):
            await peer.until(b"\r\n\r\n")
            await peer.send(OK)
        await peer.to_end()

    async with ingress(tmp_path, script) as gate, gate.client() as client:
        await client.send(POST + b"Content-Length: %d\r\n\r\n" % size + bytes(size))
        _, fields, _ = await client.answer()
        if fields.get("connection") != "close":
            await client.send(GET)
            with trio.fail_after(60):
                assert (await client.answer())[2] == b"ok"
        await trio.testing.wait_all_tasks_blocked()
        _, _, rest = gate.upstreams[0].seen.partition(b"\r\n\r\n")
        assert b"GET" not in rest or rest.startswith(bytes(size) + b"GET")


async def test_a_body_that_becomes_wrong_half_way_is_never_finished_for_the_application(tmp_path: Path) -> None:
    async with ingress(tmp_path, App()) as gate, gate.client() as client:
        await client.send(POST + CHUNKED + b"5\r\nhello\r\n")
        await trio.testing.wait_all_tasks_blocked()
        assert gate.upstreams[0].seen.endswith(b"5\r\nhello\r\n")
        await client.send(b"zz\r\n" + GET)
        status, fields, _ = await client.answer()
        assert (status, fields["connection"]) == (400, "close")
        assert await client.to_end() == b""
        await trio.testing.wait_all_tasks_blocked()
        assert gate.upstreams[0].seen.endswith(b"5\r\nhello\r\n")


async def test_a_client_that_ends_within_its_body_is_told_so(tmp_path: Path) -> None:
    app = App()
    async with ingress(tmp_path, app) as gate, gate.client() as client:
        await client.send(POST + b"Content-Length: 10\r\n\r\nhello")
        await client.stream.send_eof()
        assert (await client.answer())[0] == 400
    assert app.requests == []


async def test_a_client_that_ends_its_side_gets_its_answer(tmp_path: Path) -> None:
    released = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.until(b"\r\n\r\n")
        await released.wait()
        await peer.send(OK)
        await peer.to_end()

    async with ingress(tmp_path, script) as gate, gate.client() as client:
        await client.send(GET)
        await client.stream.send_eof()
        await trio.testing.wait_all_tasks_blocked()
        released.set()
        assert (await client.answer())[2] == b"ok"
        assert await client.to_end() == b""


async def test_a_client_that_goes_away_ends_its_request_at_the_application(tmp_path: Path) -> None:
    reached, ended = trio.Event(), trio.Event()

    async def script(peer: Peer) -> None:
        await peer.until(b"\r\n\r\n")
        reached.set()
        assert await peer.to_end() == b""
        ended.set()

    async with ingress(tmp_path, script) as gate:
        async with gate.client() as client:
            await client.send(GET)
            await reached.wait()
        with trio.fail_after(60):
            await ended.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert [entry["code"] for entry in gate.requests] == ["client_gone"]


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


async def test_sixty_four_mebibytes_pass_both_ways_at_once_in_the_memory_of_a_few_buffers(tmp_path: Path) -> None:
    size = 64 << 20
    grown: list[int] = []

    async def echo(peer: Peer) -> None:
        await peer.until(b"\r\n\r\n")
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        passed = 0
        while passed < size:
            data = peer.rest() or await peer.stream.receive_some(1 << 16)
            await peer.send(data)
            passed += len(data)

    async with ingress(tmp_path, echo) as gate, gate.client() as client, trio.open_nursery() as nursery:
        await client.send(POST + b"Content-Length: %d\r\n\r\n" % size)
        before = resident()

        async def send() -> None:
            piece = bytes(1 << 20)
            for _ in range(size >> 20):
                await client.send(piece)

        nursery.start_soon(send)
        await client.until(b"\r\n\r\n")
        received = len(await client.receive())
        while received < size:
            data = await client.stream.receive_some(1 << 16)
            assert data
            received += len(data)
            grown.append(resident() - before)
    assert received == size
    assert max(grown) < 16 << 20
