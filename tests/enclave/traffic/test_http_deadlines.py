"""Deadlines of mode http, with a clock that jumps to the next one as soon as nobody has anything to do."""

import json
from pathlib import Path

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.enclave.traffic.harness import GET, POST, App, Peer, answering, ingress


async def test_a_client_that_says_nothing_is_closed_without_a_word(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with ingress(tmp_path, App()) as gate, gate.client() as client:
        began = trio.current_time()
        assert await client.to_end() == b""
        assert trio.current_time() - began <= 15 + 2.1


async def test_a_client_that_says_nothing_more_is_closed_without_a_word(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with ingress(tmp_path, App()) as gate, gate.client() as client:
        await client.send(GET)
        assert (await client.answer())[0] == 200
        began = trio.current_time()
        assert await client.to_end() == b""
        assert 60 <= trio.current_time() - began <= 62.1


async def test_a_head_that_drips_is_ended_at_its_total_deadline(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with ingress(tmp_path, App()) as gate, gate.client() as client, trio.open_nursery() as nursery:

        async def drip() -> None:
            for byte in GET[:-1]:
                await client.send(bytes((byte,)))
                await trio.sleep(1)

        began = trio.current_time()
        nursery.start_soon(drip)
        status, fields, body = await client.answer()
        assert (status, fields["connection"], json.loads(body)["code"]) == (408, "close", "head_timeout")
        assert trio.current_time() - began <= 16
        nursery.cancel_scope.cancel()


async def test_a_body_that_stops_is_ended(tmp_path: Path, autojump_clock: MockClock) -> None:
    app = App()
    async with ingress(tmp_path, app) as gate, gate.client() as client:
        await client.send(POST + b"Content-Length: 10\r\n\r\nhello")
        status, _, body = await client.answer()
        assert (status, json.loads(body)["code"]) == (408, "body_timeout")
    assert app.requests == []


async def test_an_application_that_does_not_answer_is_a_504(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with ingress(tmp_path, answering(b"")) as gate, gate.client() as client:
        began = trio.current_time()
        await client.send(GET)
        status, _, body = await client.answer()
        assert (status, json.loads(body)["code"]) == (504, "upstream_timeout")
        assert trio.current_time() - began == pytest.approx(60, abs=1)


async def test_a_long_upload_does_not_use_up_the_time_for_its_answer(tmp_path: Path, autojump_clock: MockClock) -> None:
    app = App()
    async with ingress(tmp_path, app) as gate, gate.client() as client:
        await client.send(POST + b"Content-Length: 20\r\n\r\n")
        for _ in range(20):
            await trio.sleep(20)
            await client.send(b"x")
        assert (await client.answer())[0] == 200
    assert app.requests == [(b"POST /", b"x" * 20)]


async def test_an_answer_that_stops_is_cut(tmp_path: Path, autojump_clock: MockClock) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart"
    async with ingress(tmp_path, answering(answer)) as gate, gate.client() as client:
        await client.send(GET)
        await client.until(b"part")
        with pytest.raises(trio.BrokenResourceError):
            await client.receive()


async def test_a_client_that_does_not_read_is_cut_and_its_request_ended(tmp_path: Path, autojump_clock: MockClock) -> None:
    ended = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.until(b"\r\n\r\n")
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        with pytest.raises(trio.BrokenResourceError):
            await peer.send(bytes(100_000_000))
        ended.set()

    async with ingress(tmp_path, script) as gate, gate.client() as client:
        began = trio.current_time()
        await client.send(GET)
        await ended.wait()
        assert trio.current_time() - began <= 61
        await trio.testing.wait_all_tasks_blocked()
        assert gate.requests[0]["code"] == "client_gone"
