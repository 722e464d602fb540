"""Requests as most are, on connections that stay: each gets its own answer, and whoever leaves the usual path loses nothing."""

import json
from pathlib import Path

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.enclave.traffic.harness import GET, HOST, OK, Peer, answering, ingress

OTHER = f"GET /other HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()


def of_size(body: bytes, *fields: bytes) -> bytes:
    return b"\r\n".join((b"HTTP/1.1 200 OK", *fields, b"Content-Length: %d" % len(body), b"", body))


async def test_each_request_gets_the_answer_to_itself_when_heads_come_again_and_differ(tmp_path: Path) -> None:
    async def script(peer: Peer) -> None:
        while True:
            head = await peer.until(b"\r\n\r\n")
            target = head.split(b" ")[1]
            await peer.send(of_size(target, b"ETag: " + target))

    async with ingress(tmp_path, script) as gate, gate.client() as client:
        for request, target in ((GET, b"/"), (GET, b"/"), (OTHER, b"/other"), (OTHER, b"/other"), (GET, b"/")):
            await client.send(request)
            status, fields, body = await client.answer()
            assert (status, fields["etag"].encode(), body) == (200, target, target)
        assert len(gate.upstreams) == 1
        assert [entry["path"] for entry in gate.requests] == ["/", "/", "/other", "/other", "/"]


@pytest.mark.parametrize("cut", [1, 20, len(OK) - 3, len(OK) - 2, len(OK) - 1])
async def test_an_answer_that_begins_as_the_one_before_may_come_in_parts_and_go_on_otherwise(tmp_path: Path, cut: int) -> None:
    go_on = trio.Event()
    second = OK[:cut] + of_size(b"hello")[cut:] if cut < len(OK) - 6 else OK

    async def script(peer: Peer) -> None:
        await peer.until(b"\r\n\r\n")
        await peer.send(OK)
        await peer.until(b"\r\n\r\n")
        await peer.send(second[:cut])
        await go_on.wait()
        await peer.send(second[cut:])
        await peer.to_end()

    async with ingress(tmp_path, script) as gate, gate.client() as client:
        await client.send(GET)
        assert (await client.answer())[2] == b"ok"
        await client.send(GET)
        await trio.testing.wait_all_tasks_blocked()
        go_on.set()
        assert (await client.answer())[2] == second.partition(b"\r\n\r\n")[2]


async def test_an_answer_to_head_is_not_taken_for_one_with_a_body_nor_the_other_way_round(tmp_path: Path) -> None:
    async def script(peer: Peer) -> None:
        while True:
            head = await peer.until(b"\r\n\r\n")
            await peer.send(OK[:-2] if head.startswith(b"HEAD") else OK)

    async with ingress(tmp_path, script) as gate, gate.client() as client:
        for _ in range(3):
            await client.send(GET.replace(b"GET", b"HEAD"))
            await client.until(b"\r\n\r\n")
            await client.send(GET)
            assert (await client.answer())[2] == b"ok"
        assert len(gate.upstreams) == 1


async def test_a_kept_connection_that_stays_silent_is_a_504_and_nothing_is_asked_twice(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with ingress(tmp_path, answering(OK)) as gate, gate.client() as client:
        await client.send(GET)
        assert (await client.answer())[0] == 200
        began = trio.current_time()
        await client.send(GET)
        status, _, body = await client.answer()
        assert (status, json.loads(body)["code"]) == (504, "upstream_timeout")
        assert 60 <= trio.current_time() - began <= 61
        await client.send(GET)
        assert (await client.answer())[0] == 200
        assert len(gate.upstreams) == 2
        assert [entry["code"] for entry in gate.requests] == ["ok", "upstream_timeout", "ok"]


async def test_a_client_that_goes_while_it_waits_takes_its_kept_connection_with_it(tmp_path: Path) -> None:
    asked, ended = trio.Event(), trio.Event()

    async def script(peer: Peer) -> None:
        await peer.until(b"\r\n\r\n")
        await peer.send(OK)
        await peer.until(b"\r\n\r\n")
        asked.set()
        await peer.to_end()
        ended.set()

    async with ingress(tmp_path, script) as gate:
        async with gate.client() as client:
            await client.send(GET)
            assert (await client.answer())[0] == 200
            await client.send(GET)
            await asked.wait()
        with trio.fail_after(30):
            await ended.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert [entry["code"] for entry in gate.requests] == ["ok", "client_gone"]


async def test_requests_that_come_before_the_answer_to_the_one_before_are_answered_in_order(tmp_path: Path) -> None:
    go_on = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.until(b"\r\n\r\n")
        await peer.send(OK)
        for _ in range(3):
            head = await peer.until(b"\r\n\r\n")
            await go_on.wait()
            await peer.send(of_size(head.split(b" ")[1]))

    async with ingress(tmp_path, script) as gate, gate.client() as client:
        await client.send(GET)
        assert (await client.answer())[2] == b"ok"
        await client.send(GET)
        await trio.testing.wait_all_tasks_blocked()
        await client.send(OTHER + GET)
        await trio.testing.wait_all_tasks_blocked()
        go_on.set()
        assert [(await client.answer())[2] for _ in range(3)] == [b"/", b"/other", b"/"]
        assert len(gate.upstreams) == 1


async def test_a_client_that_reads_late_gets_all_of_what_came_at_once(tmp_path: Path) -> None:
    body = bytes(range(250)) * 640

    async def script(peer: Peer) -> None:
        while True:
            await peer.until(b"\r\n\r\n")
            await peer.send(of_size(body))

    async with ingress(tmp_path, script) as gate, gate.client() as client:
        await client.send(GET)
        assert (await client.answer())[2] == body
        for _ in range(4):
            await client.send(GET)
            await trio.testing.wait_all_tasks_blocked()
        for _ in range(4):
            assert (await client.answer())[2] == body
        await client.send(GET)
        assert (await client.answer())[2] == body


async def test_who_asks_for_the_end_of_its_connection_is_told_and_gets_it(tmp_path: Path) -> None:
    async with ingress(tmp_path, answering(OK, OK, OK)) as gate:
        for _ in range(3):
            async with gate.client() as client:
                await client.send(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
                assert await client.answer() == (200, {"content-length": "2", "connection": "close"}, b"ok")
                assert await client.to_end() == b""
        assert len(gate.upstreams) == 1
