"""Clients that ask and do not read, or send what takes long to read, and a customer process that goes at the wrong moment."""

import errno
import re
import socket
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from runtime.enclave.traffic import http_answers, http_heads, http_pool
from runtime.enclave.traffic.http_proxy import HttpLimits
from runtime.enclave.traffic.ingress import IngressLimits
from tests.enclave.traffic.harness import GET, HOST, OK, Gate, Peer, answering, ingress

POST = f"POST / HTTP/1.1\r\nHost: {HOST}\r\n".encode()
LARGE = b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + b"x" * 200_000


async def is_asked(peer: Peer) -> bool:
    """Whether another request came, which has no body."""
    try:
        await peer.until(b"\r\n\r\n")
    except AssertionError:
        return False
    return True


async def large_after_the_first(peer: Peer) -> None:
    answer = OK
    while await is_asked(peer):
        await peer.send(answer)
        answer = LARGE


async def test_an_answer_that_its_client_never_takes_is_logged_so_and_is_under_way_until_then(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    limits = IngressLimits(http=HttpLimits(send_timeout=5, in_flight=1))
    async with ingress(tmp_path, large_after_the_first, limits=limits) as gate, gate.client() as silent:
        await silent.send(GET)
        assert (await silent.answer())[2] == b"ok"
        for _ in range(2):  # the second answer finds no room
            await silent.send(GET)
            await trio.sleep(1)
        async with gate.client() as other:
            await other.send(GET)
            assert (await other.answer())[0] == 503
        await trio.sleep(10)
        codes = [entry["code"] for entry in gate.requests]
        assert codes[-1] == "client_gone"
        assert "overloaded" in codes
        async with gate.client() as other:
            await other.send(GET)
            assert (await other.answer())[0] == 200


async def test_a_connection_whose_request_found_a_kept_one_ends_when_it_was_idle(tmp_path: Path, autojump_clock: MockClock) -> None:
    limits = IngressLimits(http=HttpLimits(keep_alive=1, head_timeout=40))
    async with ingress(tmp_path, answering(OK, OK), limits=limits) as gate:
        async with gate.client() as client:
            await client.send(GET)
            assert (await client.answer())[0] == 200
        async with gate.client() as client:
            await client.send(GET)
            assert (await client.answer())[0] == 200
            began = trio.current_time()
            assert await client.to_end() == b""
            assert trio.current_time() - began < 2


class Failing:
    """A socket whose second send fails for want of memory."""

    def __init__(self, kept: socket.socket) -> None:
        self._kept = kept
        self._sends = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._kept, name)

    def send(self, data: bytes) -> int:
        self._sends += 1
        if self._sends == 2:
            raise OSError(errno.ENOBUFS, "no buffer space")
        return self._kept.send(data)


async def test_a_body_that_was_not_all_sent_ends_its_connection_to_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = http_pool.Upstream.__init__
    sent = trio.Event()

    def init(upstream: http_pool.Upstream, *given: object) -> None:
        real(upstream, *given)  # type: ignore[arg-type] # whatever they are
        upstream.socket = Failing(upstream.socket)  # type: ignore[assignment] # it is one for all that is done with it

    async def early(peer: Peer) -> None:
        await peer.until(b"\r\n\r\n")
        await sent.wait()
        await peer.send(OK)
        await peer.to_end()

    monkeypatch.setattr(http_pool.Upstream, "__init__", init)
    async with ingress(tmp_path, early) as gate:
        async with gate.client() as client:
            await client.send(POST + b"Content-Length: 1000\r\n\r\n")
            await trio.testing.wait_all_tasks_blocked()
            await client.send(b"A" * 1000)
            await trio.testing.wait_all_tasks_blocked()
            sent.set()
            assert (await client.answer())[0] == 200
        async with gate.client() as client:
            await client.send(GET)
            assert (await client.answer())[0] == 200
        assert len(gate.upstreams) == 2


async def never_reading(gate: Gate, requests: int) -> None:
    async with gate.client() as client:
        await client.send(GET * requests + POST + b"Content-Length: 1\r\nExpect: 100-continue\r\n\r\n")
        await trio.sleep(3)


async def test_a_kept_connection_that_ends_while_its_next_client_is_told_to_continue_ends_nobody_else(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"x" * 1000

    async def idle_for_a_moment(peer: Peer) -> None:
        with trio.move_on_after(0.3) as waiting:
            while await is_asked(peer):
                await peer.send(answer)
                waiting.deadline = trio.current_time() + 0.3

    async with ingress(tmp_path, idle_for_a_moment) as gate:
        async with trio.open_nursery() as nursery:
            for requests in range(60, 160):
                nursery.start_soon(partial(never_reading, gate, requests))
        async with gate.client() as client:
            await client.send(GET)
            assert (await client.answer())[0] == 200


@pytest.mark.parametrize(
    ("pattern", "name"), [(http_heads._CODING, b"transfer-encoding"), (http_answers._OURS, b"trailer")], ids=["request", "answer"]
)
def test_a_value_with_a_long_blank_is_read_in_one_pass(pattern: re.Pattern[bytes], name: bytes) -> None:
    """In the square of its length this would take hours."""
    blank = b" \t" * 500_000
    found = pattern.findall(name + b":" + blank + b"a" + blank + b"b" + blank + b"\r\n")
    value = found[0] if isinstance(found[0], bytes) else found[0][-1]
    assert value == b"a" + blank + b"b"
