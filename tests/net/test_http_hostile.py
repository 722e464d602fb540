"""What a hostile or slow client gets from the HTTP server: one refusal as problem+json, then the end. Never a handler's time."""

import json
from dataclasses import dataclass

import pytest
import trio
import trio.testing

from runtime.net.http import HEAD_MAX, TARGET_MAX, Request, Response, serve_http
from tests.support.sockets import socket_pair

MAX_BODY = 1000


@dataclass(frozen=True, slots=True)
class Conversation:
    """What the client received in all, and the requests that the handler saw."""

    received: bytes
    requests: list[Request]

    @property
    def status(self) -> int:
        return int(self.received.split(b" ", 2)[1])

    @property
    def code(self) -> str:
        head, _, body = self.received.partition(b"\r\n\r\n")
        assert b"content-type: application/problem+json" in head.lower()
        assert b"connection: close" in head.lower()
        document = json.loads(body)
        assert document["status"] == self.status
        return str(document["code"])


async def converse(*parts: bytes, pause: float = 0.0, eof: bool = True) -> Conversation:
    """Sends `parts` with `pause` seconds before each but the first, and receives to the end."""
    near, far = trio.testing.memory_stream_pair()
    requests: list[Request] = []

    async def handler(request: Request) -> Response:
        await trio.lowlevel.checkpoint()
        requests.append(request)
        return Response(200, (), b"ok")

    async def send() -> None:
        for number, part in enumerate(parts):
            await trio.sleep(pause if number else 0)
            try:
                await near.send_all(part)
            except trio.BrokenResourceError:
                return
        if eof:
            await near.send_eof()

    received = b""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: serve_http(far, handler, max_body=MAX_BODY))
        nursery.start_soon(send)
        while chunk := await near.receive_some():
            received += chunk
        nursery.cancel_scope.cancel()
    return Conversation(received, requests)


def get(*lines: bytes, target: bytes = b"/") -> bytes:
    return b"GET " + target + b" HTTP/1.1\r\n" + b"".join(line + b"\r\n" for line in (b"Host: a", *lines)) + b"\r\n"


def post(body: bytes, *lines: bytes) -> bytes:
    return b"POST / HTTP/1.1\r\n" + b"".join(line + b"\r\n" for line in (b"Host: a", *lines)) + b"\r\n" + body


CHUNKED = b"Transfer-Encoding: chunked"


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(20), 400, "bad_request"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505, "bad_version"),
        (b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", 505, "bad_version"),
        (b"GET /\r\n\r\n", 400, "bad_request"),
        (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_request"),
        (b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nBad Name: x\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX : x\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n", 400, "bad_request"),
        (post(b"", b"Content-Length: -1"), 400, "bad_request"),
        (post(b"", b"Content-Length: 1_0"), 400, "bad_request"),
        (post(b"", b"Content-Length: +1"), 400, "bad_request"),
        (post(b"ab", b"Content-Length: 1", b"Content-Length: 2"), 400, "bad_request"),
        (post(b"ab", b"Content-Length: 1, 2"), 400, "bad_request"),
        (post(b"", b"Transfer-Encoding: gzip, chunked"), 501, "bad_request"),
        (post(b"", b"Transfer-Encoding: xchunked"), 501, "bad_request"),
        (post(b"0\r\n\r\n", CHUNKED, CHUNKED), 501, "bad_request"),
        (post(b"0\r\n\r\nGET /smuggled", b"Content-Length: 5", CHUNKED), 400, "bad_framing"),
        (post(b"0\r\n\r\n", CHUNKED).replace(b"HTTP/1.1", b"HTTP/1.0"), 400, "bad_framing"),
        (post(b"zz\r\n", CHUNKED), 400, "bad_body"),
        (post(b"2\r\nabX\r\n", CHUNKED), 400, "bad_body"),
        (post(b"0x2\r\nab\r\n0\r\n\r\n", CHUNKED), 400, "bad_body"),
        (post(b"short", b"Content-Length: 6"), 400, "bad_body"),
        (post(b"2\r\nab\r\n", CHUNKED), 400, "bad_body"),
        (get(target=b"http://a/"), 400, "bad_target"),
        (get(target=b"*"), 400, "bad_target"),
        (b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_target"),
        (get(target=b"/" + TARGET_MAX * b"x"), 414, "target_too_long"),
        (get(target=b"/" + 3 * HEAD_MAX * b"x"), 414, "target_too_long"),
        (get(b"X: " + HEAD_MAX * b"x"), 431, "head_too_large"),
        (get(b"X: " + 10 * HEAD_MAX * b"x"), 431, "head_too_large"),
        (get(*(4000 * [b"X: y"])), 431, "head_too_large"),
        (post(b"", b"Content-Length: 1001"), 413, "body_too_large"),
        (post(b"", b"Content-Length: 99999999999999999999"), 413, "body_too_large"),
        (post(b"3e9\r\n" + 1001 * b"x" + b"\r\n0\r\n\r\n", CHUNKED), 413, "body_too_large"),
        (post(600 * b"1\r\nx\r\n" + b"190\r\n" + 401 * b"x", CHUNKED), 400, "bad_body"),
    ],
)
async def test_a_bad_request_is_refused_and_reaches_no_handler(data: bytes, status: int, code: str) -> None:
    conversation = await converse(data)
    assert (conversation.status, conversation.code, conversation.requests) == (status, code, [])


@pytest.mark.parametrize(
    "data",
    [
        get(b"X: y", target=b"/a/b?c"),
        post(1000 * b"x", b"Content-Length: 1000"),
        post(b"3e8\r\n" + 1000 * b"x" + b"\r\n0\r\n\r\n", CHUNKED),
        get(target=b"/" + (TARGET_MAX - 1) * b"x"),
        get(b"X: " + (HEAD_MAX - 100) * b"x"),
    ],
    ids=["a small one", "the largest body", "the largest body in chunks", "the longest target", "a long head"],
)
async def test_what_is_within_the_bounds_is_answered(data: bytes) -> None:
    conversation = await converse(data)
    assert (conversation.status, len(conversation.requests)) == (200, 1)


async def test_a_request_in_single_bytes_is_the_same_request() -> None:
    data = post(b"5\r\nhello\r\n0\r\n\r\n", CHUNKED)
    conversation = await converse(*(data[position : position + 1] for position in range(len(data))))
    assert [request.body for request in conversation.requests] == [b"hello"]


async def test_a_request_cut_anywhere_reaches_no_handler() -> None:
    data = post(b"hello", b"Content-Length: 5")
    for size in range(len(data)):
        conversation = await converse(data[:size])
        assert conversation.requests == []
        assert (conversation.received == b"") if size == 0 else (conversation.status == 400)


async def test_requests_sent_ahead_are_answered_in_order_until_one_is_bad() -> None:
    conversation = await converse(get(target=b"/1") + post(b"two", b"Content-Length: 3") + b"BAD\r\n\r\n" + get(target=b"/4"))
    assert [request.path for request in conversation.requests] == ["/1", "/"]
    assert conversation.received.count(b"HTTP/1.1 200 OK") == 2
    assert conversation.received.count(b"HTTP/1.1 400 Bad Request") == 1


async def test_what_follows_a_close_is_not_read() -> None:
    conversation = await converse(get(b"Connection: close") + get(target=b"/smuggled"))
    assert [request.path for request in conversation.requests] == ["/"]


async def test_a_client_that_waits_for_a_go_ahead_gets_one() -> None:
    near, far = trio.testing.memory_stream_pair()

    async def handler(request: Request) -> Response:
        await trio.lowlevel.checkpoint()
        return Response(200, (), request.body[::-1])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: serve_http(far, handler, max_body=MAX_BODY))
        await near.send_all(post(b"", b"Content-Length: 3", b"Expect: 100-continue"))
        assert (await near.receive_some()).startswith(b"HTTP/1.1 100 ")
        await near.send_all(b"abc")
        assert (await near.receive_some()).endswith(b"\r\n\r\ncba")
        await near.send_eof()


async def test_a_client_that_waits_with_too_much_gets_no_go_ahead() -> None:
    conversation = await converse(post(b"", b"Content-Length: 1001", b"Expect: 100-continue"))
    assert conversation.status == 413


@pytest.mark.parametrize(
    ("parts", "pause", "seconds", "status"),
    [
        ([], 0, 10, None),
        ([b"G"], 0, 10, 408),
        ([bytes((byte,)) for byte in get()], 1, 10, 408),
        ([post(b"", b"Content-Length: 3")], 0, 10, 408),
        ([post(b"", b"Content-Length: 30"), *(30 * [b"x"])], 0.9, 10, 408),
        ([get(), get()], 59, 59 + 60, 200),
        ([get()], 0, 60, 200),
        ([get(), b"G"], 30, 40, 200),
    ],
    ids=["silent", "half a line", "dripped head", "no body", "dripped body", "kept alive", "idle", "stalls in its second request"],
)
async def test_every_wait_has_an_end(
    parts: list[bytes], pause: float, seconds: float, status: int | None, autojump_clock: trio.testing.MockClock
) -> None:
    conversation = await converse(*parts, pause=pause, eof=False)
    assert seconds <= trio.current_time() <= seconds + 1  # one more for a refused client to read its refusal
    assert (conversation.received == b"") if status is None else (conversation.status == status)
    if status == 408:
        assert conversation.code in {"head_timeout", "body_timeout"}


async def test_a_refusal_arrives_at_once_although_the_client_goes_on_sending(autojump_clock: trio.testing.MockClock) -> None:
    client, server = socket_pair()

    async def handler(_: Request) -> Response:
        raise AssertionError

    async with client, trio.open_nursery() as nursery:
        nursery.start_soon(lambda: serve_http(server, handler, max_body=MAX_BODY))
        await client.send_all(post(200_000 * b"x", b"Content-Length: 200000"))
        received = b""
        while chunk := await client.receive_some():
            received += chunk
        assert trio.current_time() == 0
    assert received.startswith(b"HTTP/1.1 413 ")


async def test_a_refused_client_that_never_stops_is_left_soon(autojump_clock: trio.testing.MockClock) -> None:
    near, far = trio.testing.memory_stream_pair()

    async def handler(_: Request) -> Response:
        raise AssertionError

    async def pour() -> None:
        with pytest.raises(trio.BrokenResourceError):
            await pour_forever(near)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pour)
        await serve_http(far, handler, max_body=MAX_BODY)
    assert trio.current_time() < 2


@pytest.mark.parametrize("data", [get(), b"BAD\r\n\r\n"], ids=["an answer", "a refusal"])
async def test_a_client_that_does_not_take_what_it_gets_is_left(data: bytes, autojump_clock: trio.testing.MockClock) -> None:
    near, far = trio.testing.lockstep_stream_pair()

    async def handler(_: Request) -> Response:
        await trio.lowlevel.checkpoint()
        return Response(200)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(near.send_all, data)
        with pytest.raises(trio.TooSlowError):
            await serve_http(far, handler, max_body=MAX_BODY, idle_timeout=30)
    assert trio.current_time() == pytest.approx(30)
    await near.aclose()


async def pour_forever(stream: trio.abc.SendStream) -> None:
    while True:
        await stream.send_all(b"\0" * 16_384)
        await trio.lowlevel.checkpoint()


async def test_a_peer_that_resets_between_two_requests_has_done_nothing_wrong() -> None:
    async def reset() -> None:
        await trio.lowlevel.checkpoint()
        raise trio.BrokenResourceError

    receive = trio.testing.MemoryReceiveStream(close_hook=None)
    receive.put_data(get())
    send = trio.testing.MemorySendStream()

    async def handler(_: Request) -> Response:
        receive.receive_some_hook = reset
        await trio.lowlevel.checkpoint()
        return Response(200)

    await serve_http(trio.StapledStream(send, receive), handler, max_body=0)
    assert send.get_data_nowait().startswith(b"HTTP/1.1 200 OK")
