"""HTTP for control traffic, both ends together: whole messages, keep-alive, and the bounds of a client."""

import json
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from runtime.net.http import HEAD_MAX, HttpClient, Request, Response, problem, serve_http
from runtime.net.serve import CONNECTION_ERRORS
from runtime.protocol.errors import LocalProtocolError, Malformed

Handler = Callable[[Request], Awaitable[Response]]


async def echo(request: Request) -> Response:
    await trio.lowlevel.checkpoint()
    return Response(200, (("x-seen", f"{request.method} {request.path}?{request.query}"),), request.body)


def serving(nursery: trio.Nursery, handler: Handler = echo, *, max_requests: int = 1000) -> HttpClient:
    near, far = trio.testing.memory_stream_pair()
    nursery.start_soon(lambda: serve_http(far, handler, max_body=1000, max_requests=max_requests))
    return HttpClient(near, host="a.example")


async def answering(*answers: bytes) -> HttpClient:
    """A client whose server sends `answers` and then ends, whatever it is asked."""
    near, far = trio.testing.memory_stream_pair()
    for answer in answers:
        await far.send_all(answer)
    await far.send_eof()
    return HttpClient(near, host="a.example")


async def test_requests_and_answers_arrive_whole(nursery: trio.Nursery) -> None:
    client = serving(nursery)
    answer = await client.request("POST", "/prov/1/hello?a=%2F&b", headers=[("Content-Type", "x/y")], body=b"\0\r\n", max_body=10)
    assert (answer.status, answer.body, answer.header("X-Seen")) == (200, b"\0\r\n", "POST /prov/1/hello?a=%2F&b")


async def test_a_handler_sees_the_request_and_lower_case_names(nursery: trio.Nursery) -> None:
    seen: list[Request] = []

    async def handler(request: Request) -> Response:
        await trio.lowlevel.checkpoint()
        seen.append(request)
        return Response(204)

    answer = await serving(nursery, handler).request("PUT", "/x", headers=[("X-One", "1"), ("x-one", "2")], max_body=0)
    assert answer == Response(204, (), b"")
    (request,) = seen
    assert request.headers == (("host", "a.example"), ("x-one", "1"), ("x-one", "2"), ("content-length", "0"))
    assert (request.header("X-ONE"), request.header("x-two"), request.query, request.body) == ("1", None, "", b"")


async def test_a_connection_is_used_again(nursery: trio.Nursery) -> None:
    client = serving(nursery)
    for number in range(5):
        body = str(number).encode()
        assert (await client.request("POST", f"/{number}", body=body, max_body=10)).body == body
        assert client.is_reusable


async def test_after_its_last_request_the_server_closes(nursery: trio.Nursery) -> None:
    client = serving(nursery, max_requests=2)
    assert (await client.request("GET", "/", max_body=10)).header("connection") is None
    assert (await client.request("GET", "/", max_body=10)).header("connection") == "close"
    assert not client.is_reusable
    with pytest.raises(LocalProtocolError):
        await client.request("GET", "/", max_body=10)


@pytest.mark.parametrize("side", ["client", "server"])
async def test_connection_close_is_honoured(side: str, nursery: trio.Nursery) -> None:
    close = (("connection", "close"),)

    async def handler(_: Request) -> Response:
        await trio.lowlevel.checkpoint()
        return Response(200, close if side == "server" else ())

    client = serving(nursery, handler)
    answer = await client.request("GET", "/", headers=close if side == "client" else (), max_body=10)
    assert answer.header("connection") == "close"
    assert not client.is_reusable
    assert await client._stream.receive_some() == b""


async def test_an_answer_to_head_has_a_length_and_no_body(nursery: trio.Nursery) -> None:
    async def handler(_: Request) -> Response:
        await trio.lowlevel.checkpoint()
        return Response(200, (), b"twelve bytes")

    client = serving(nursery, handler)
    for _ in range(2):
        answer = await client.request("HEAD", "/", max_body=100)
        assert (answer.header("content-length"), answer.body) == ("12", b"")
    assert (await client.request("GET", "/", max_body=100)).body == b"twelve bytes"


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_that_may_have_no_body_has_none(status: int, nursery: trio.Nursery) -> None:
    async def handler(_: Request) -> Response:
        await trio.lowlevel.checkpoint()
        return Response(status, (), b"must not be sent")

    client = serving(nursery, handler)
    for _ in range(2):
        assert await client.request("GET", "/", max_body=100) == Response(status)


def test_a_problem_says_what_and_when_to_come_back() -> None:
    answer = problem(429, "rate_limited", "too many", retry_after=3)
    assert json.loads(answer.body) == {
        "type": "about:blank",
        "title": "Too Many Requests",
        "status": 429,
        "code": "rate_limited",
        "detail": "too many",
    }
    assert (answer.status, answer.header("content-type")) == (429, "application/problem+json")
    assert answer.header("retry-after") == "3"
    assert problem(500, "internal", "").header("retry-after") is None


@pytest.mark.parametrize("error", [Malformed("not for me"), KeyError("bug")])
async def test_what_a_handler_raises_propagates_and_closes(error: Exception) -> None:
    async def handler(_: Request) -> Response:
        await trio.lowlevel.checkpoint()
        raise error

    near, far = trio.testing.memory_stream_pair()
    await near.send_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    with pytest.raises(type(error)):
        await serve_http(far, handler, max_body=0)
    assert await near.receive_some() == b""


async def test_informational_answers_are_passed_over() -> None:
    client = await answering(
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    )
    assert (await client.request("GET", "/", max_body=2)).body == b"ok"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-trailer: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ],
    ids=["chunked", "until the end", "old"],
)
async def test_every_framing_of_an_answer_is_read(answer: bytes) -> None:
    client = await answering(*(answer[position : position + 1] for position in range(len(answer))))
    assert (await client.request("GET", "/", max_body=2)).body == b"ok"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n" + 11 * b"x" + b"\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n" + 11 * b"x",
        b"HTTP/1.1 200 OK\r\nX: " + HEAD_MAX * b"x" + b"\r\n\r\n",
    ],
    ids=["by its length", "by a length that nobody could hold", "in chunks", "until the end", "in its head"],
)
async def test_an_answer_over_its_bounds_is_refused(answer: bytes) -> None:
    client = await answering(answer)
    with pytest.raises(Malformed) as refused:
        await client.request("GET", "/", max_body=10)
    assert refused.value.reason in {"too_large", "http_malformed"}
    assert isinstance(refused.value, CONNECTION_ERRORS)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 banana\r\n\r\n",
        b"\x16\x03\x03\x00\x02\x02\x28",
        b"HTTP/1.1 100 Continue\r\n\r\n",
    ],
)
async def test_an_answer_that_is_not_whole_is_refused(answer: bytes) -> None:
    client = await answering(answer)
    with pytest.raises(Malformed) as refused:
        await client.request("GET", "/", max_body=10)
    assert refused.value.reason == "http_malformed"
