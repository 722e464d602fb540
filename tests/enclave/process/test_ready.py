"""Readiness: how a port is asked, and how answers become a state."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from runtime.enclave.config import Ready
from runtime.enclave.config_values import Url
from runtime.enclave.process.ready import follow_readiness
from runtime.enclave.worker.probe import is_ready
from runtime.net.endpoint import Tcp, bound, listen
from runtime.net.serve import serve

Handler = Callable[[trio.SocketStream], Awaitable[None]]


@asynccontextmanager
async def served(handler: Handler) -> AsyncIterator[Tcp]:
    listener = await listen(Tcp("127.0.0.1", 0))
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve, listener, handler, limit=4))
        at = bound(listener)
        assert isinstance(at, Tcp)
        yield at
        nursery.cancel_scope.cancel()


def answering(data: bytes) -> Handler:
    async def handle(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(data)

    return handle


def http(at: Tcp, path: str = "/healthz") -> Ready:
    return Ready(http=Url("http", at.host, at.port, path))


ANSWERS = {
    "200": (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", True),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", True),
    "302": (b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n", True),
    "100 before 200": (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", True),
    "404": (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", False),
    "500": (b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n", False),
    "no HTTP": (b"hello\r\n\r\n", False),
    "an end": (b"", False),
    "a body that ends too early": (b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nok", False),
    "a body that is too large": (b"HTTP/1.1 200 OK\r\nContent-Length: 70000\r\n\r\n" + bytes(70000), False),
    "a head that is too large": (b"HTTP/1.1 200 OK\r\nA: " + b"a" * 70000 + b"\r\n\r\n", False),
}


@pytest.mark.parametrize("what", ANSWERS)
async def test_a_process_is_as_ready_as_its_answer_over_http(what: str) -> None:
    data, expected = ANSWERS[what]
    async with served(answering(data)) as at:
        assert await is_ready(http(at)) is expected


async def test_the_request_is_one_for_its_path() -> None:
    asked: list[bytes] = []

    async def handle(stream: trio.SocketStream) -> None:
        asked.append(bytes(await stream.receive_some()))
        await stream.send_all(ANSWERS["200"][0])

    async with served(handle) as at:
        assert await is_ready(http(at, "/healthz?deep=1"))
        assert asked[0].startswith(b"GET /healthz?deep=1 HTTP/1.1\r\n")
        assert b"127.0.0.1:%d" % at.port in asked[0]


async def test_a_port_that_takes_connections_is_ready_and_one_that_does_not_is_not() -> None:
    async with served(answering(b"")) as at:
        assert await is_ready(Ready(tcp=at))
    assert not await is_ready(Ready(tcp=at))
    assert not await is_ready(http(at))


class Asked:
    """Answers as it was told, one after the other, and keeps when it was asked."""

    def __init__(self, *answers: bool | None) -> None:
        self._answers = list(answers)
        self.times: list[float] = []

    async def __call__(self) -> bool:
        self.times.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        answer = self._answers.pop(0) if self._answers else False
        if answer is None:
            await trio.sleep_forever()
        return bool(answer)


async def follow(asked: Asked, *, seconds: float, failures: int = 3) -> list[tuple[float, bool]]:
    """The changes, with their times."""
    changes: list[tuple[float, bool]] = []
    ready = Ready(tcp=Tcp("127.0.0.1", 1), interval=1.0, timeout=0.5, failures=failures)
    with trio.move_on_after(seconds):
        await follow_readiness(ready, asked, lambda is_ready: changes.append((round(trio.current_time(), 3), is_ready)))
    return changes


async def test_the_first_yes_makes_ready_and_no_earlier_no_counts(autojump_clock: trio.testing.MockClock) -> None:
    assert await follow(Asked(False, False, False, False, True, True), seconds=5.5) == [(4.0, True)]


async def test_as_many_noes_as_configured_in_a_row_make_not_ready(autojump_clock: trio.testing.MockClock) -> None:
    asked = Asked(True, False, False, True, False, False, False, False, True)
    assert await follow(asked, seconds=9.5) == [(0.0, True), (6.0, False), (8.0, True)]


async def test_one_no_is_enough_where_one_is_configured(autojump_clock: trio.testing.MockClock) -> None:
    assert await follow(Asked(True, False, True), seconds=2.5, failures=1) == [(0.0, True), (1.0, False), (2.0, True)]


async def test_no_answer_in_time_is_a_no_and_questions_keep_their_pace(autojump_clock: trio.testing.MockClock) -> None:
    asked = Asked(True, None, None, None, True)
    assert await follow(asked, seconds=5.5) == [(0.0, True), (3.5, False), (4.0, True)]
    assert asked.times == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
