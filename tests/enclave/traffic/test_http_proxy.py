"""Mode http between a client and a customer process that both do as they please."""

import json
from contextlib import suppress
from pathlib import Path

import pytest
import trio
import trio.testing

from runtime.enclave.traffic.http_exchange import ExchangeLimits
from runtime.enclave.traffic.http_proxy import HttpLimits
from runtime.enclave.traffic.ingress import IngressLimits
from tests.enclave.traffic.harness import App, Peer, Script, ingress, parse_head

GET = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a.example\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


def answering(*answers: bytes, close: bool = False) -> Script:
    """Answers requests without a body, one after the other, with these bytes, then ends or waits."""

    async def script(peer: Peer) -> None:
        for answer in answers:
            await peer.until(b"\r\n\r\n")
            await peer.send(answer)
        if not close:
            await peer.to_end()

    return script


async def test_requests_of_one_client_share_one_connection_to_the_application(tmp_path: Path) -> None:
    async with ingress(tmp_path, answering(OK, OK, OK)) as gate, gate.client() as client:
        for _ in range(3):
            await client.send(GET)
            assert await client.answer() == (200, {"content-length": "2"}, b"ok")
        assert len(gate.upstreams) == 1


async def test_another_client_never_shares_it(tmp_path: Path) -> None:
    async with ingress(tmp_path, answering(OK)) as gate:
        for _ in range(2):
            async with gate.client() as client:
                await client.send(GET)
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
        b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nxx",
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


@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 99 \r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000,
        b"",
    ],
)
async def test_an_answer_that_is_none_becomes_a_502_that_tells_nothing(tmp_path: Path, answer: bytes) -> None:
    async with ingress(tmp_path, answering(answer, close=True)) as gate, gate.client() as client:
        for _ in range(2):  # the client's connection is still good
            await client.send(GET)
            status, fields, body = await client.answer()
            assert (status, fields["content-type"]) == (502, "application/problem+json")
            assert json.loads(body) == {
                "type": "about:blank", "title": "Bad Gateway", "status": 502, "code": "upstream_failed",
                "detail": "the application did not give a usable answer",
            }  # fmt: skip


async def test_an_application_that_is_not_there_is_a_502(tmp_path: Path) -> None:
    async with ingress(tmp_path, None) as gate, gate.client() as client:
        await client.send(GET)
        status, _, body = await client.answer()
        assert status == 502
        assert str(tmp_path).encode() not in body


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart", b"HTTP/1.1 200 OK\r\n" + CHUNKED + b"4\r\npart\r\n"]
)
@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
async def test_an_answer_that_is_cut_short_is_cut_short_for_the_client_too(tmp_path: Path, answer: bytes, version: bytes) -> None:
    async with ingress(tmp_path, answering(answer, close=True)) as gate, gate.client() as client:
        await client.send(GET.replace(b"1.1", version))
        assert b"200" in await client.until(b"part\r\n" if b"chunked" in answer and version == b"1.1" else b"part")
        # No close_notify, no last chunk: nobody can take it for the whole.
        with pytest.raises(trio.BrokenResourceError):
            await client.receive()
        assert not client.seen.endswith(b"0\r\n\r\n")


async def test_an_answer_that_ends_with_its_connection_is_chunked_for_the_client(tmp_path: Path) -> None:
    async with ingress(tmp_path, answering(b"HTTP/1.0 200 OK\r\n\r\nuntil the end", close=True)) as gate, gate.client() as client:
        for _ in range(2):
            await client.send(GET)
            status, fields = parse_head(await client.until(b"\r\n\r\n"))
            assert (status, fields) == (200, {"transfer-encoding": "chunked"})
            assert await client.until(b"0\r\n\r\n") == b"d\r\nuntil the end\r\n0\r\n\r\n"


async def test_a_client_of_http_1_0_gets_bytes_until_the_end(tmp_path: Path) -> None:
    answer = b"HTTP/1.1 200 OK\r\n" + CHUNKED + b"5\r\nhello\r\n0\r\nX-Trailer: 1\r\n\r\n"
    async with ingress(tmp_path, answering(answer)) as gate, gate.client() as client:
        await client.send(GET.replace(b"1.1", b"1.0"))
        status, fields = parse_head(await client.until(b"\r\n\r\n"))
        assert (status, fields) == (200, {"connection": "close"})
        assert await client.to_end() == b"hello"


@pytest.mark.parametrize(
    ("request_bytes", "answer", "fields"),
    [
        (GET.replace(b"GET", b"HEAD"), b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", {"content-length": "1000"}),
        (GET.replace(b"GET", b"HEAD"), b"HTTP/1.1 200 OK\r\n" + CHUNKED, {"transfer-encoding": "chunked"}),
        (GET, b"HTTP/1.1 204 No Content\r\n\r\n", {}),
        (GET, b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", {}),
        (GET, b'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\nContent-Length: 1000\r\n\r\n', {"etag": '"x"', "content-length": "1000"}),
    ],
)
async def test_answers_without_a_body_have_none_and_the_connection_goes_on(
    tmp_path: Path, request_bytes: bytes, answer: bytes, fields: dict[str, str]
) -> None:
    async with ingress(tmp_path, answering(answer, OK)) as gate, gate.client() as client:
        await client.send(request_bytes)
        assert parse_head(await client.until(b"\r\n\r\n"))[1] == fields
        await client.send(GET)
        assert await client.answer() == (200, {"content-length": "2"}, b"ok")
        assert len(gate.upstreams) == 1


async def test_an_answer_comes_back_with_its_own_fields_and_without_those_of_its_hop(tmp_path: Path) -> None:
    answer = (
        b"HTTP/1.1 201 Made Up\r\nServer: theirs\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nConnection: X-Hop\r\nX-Hop: 1\r\n"
        b"Keep-Alive: timeout=9\r\nProxy-Authenticate: Basic\r\nUpgrade: h2c\r\nTrailer: X\r\nContent-Length: 0\r\n\r\n"
    )
    async with ingress(tmp_path, answering(answer)) as gate, gate.client() as client:
        await client.send(GET)
        head = await client.until(b"\r\n\r\n")
        assert head == b"HTTP/1.1 201 Made Up\r\nServer: theirs\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (
            "2001:db8::7",
            [
                b"x-forwarded-for: 2001:db8::7",
                b"x-real-ip: 2001:db8::7",
                b'forwarded: for="[2001:db8::7]";host="a.example";proto=https',
            ],
        ),
        (None, [b'forwarded: host="a.example";proto=https']),
    ],
)
async def test_the_application_learns_where_the_request_came_from(
    tmp_path: Path, source: str | None, expected: list[bytes]
) -> None:
    async with ingress(tmp_path, answering(OK)) as gate, gate.client(source=source) as client:
        await client.send(GET)
        assert (await client.answer())[0] == 200
        lines = gate.upstreams[0].seen.split(b"\r\n")
        assert [line for line in lines if line.startswith((b"x-forwarded-for", b"x-real-ip", b"forwarded"))] == expected


async def test_who_waits_for_a_continue_gets_it_and_the_application_gets_the_body(tmp_path: Path) -> None:
    app = App()
    async with ingress(tmp_path, app) as gate, gate.client() as client:
        await client.send(POST + b"Expect: 100-Continue\r\nContent-Length: 5\r\n\r\n")
        assert await client.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(b"hello")
        assert await client.answer() == (200, {"content-length": "2"}, b"ok")
        assert b"expect" not in gate.upstreams[0].seen.lower()
    assert app.requests == [(b"POST /", b"hello")]


async def test_who_waits_for_a_continue_before_an_absent_application_gets_the_error_instead(tmp_path: Path) -> None:
    async with ingress(tmp_path, None) as gate, gate.client() as client:
        await client.send(POST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        status, fields, _ = await client.answer()
        assert (status, fields["connection"]) == (502, "close")
        assert await client.to_end() == b""


async def test_informational_answers_go_through_but_for_100(tmp_path: Path) -> None:
    answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\nConnection: x\r\n\r\n" + OK
    async with ingress(tmp_path, answering(answer)) as gate:
        async with gate.client() as client:
            await client.send(GET)
            assert await client.until(b"ok") == b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + OK
        async with gate.client() as client:
            await client.send(GET.replace(b"1.1", b"1.0"))
            assert (await client.answer())[0] == 200


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
        with trio.fail_after(5):
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
        with trio.fail_after(5):
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
        with trio.fail_after(5):
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
            with trio.fail_after(5):
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
        with trio.fail_after(5):
            await ended.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert [entry["code"] for entry in gate.logged("http_request")] == ["client_gone"]


async def test_while_the_application_is_not_ready_clients_are_told_when_to_come_back(tmp_path: Path) -> None:
    async with ingress(tmp_path, App()) as gate, gate.client() as client:
        gate.readiness[0] = False
        await client.send(GET)
        status, fields, body = await client.answer()
        assert (status, fields["retry-after"], fields["connection"]) == (503, "5", "close")
        assert json.loads(body)["code"] == "not_ready"
        assert await client.to_end() == b""
        assert gate.upstreams == []


async def test_a_request_under_way_is_finished_and_its_connection_ended_when_the_worker_drains(tmp_path: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.until(b"\r\n\r\n")
        gate.readiness[0] = False
        await peer.send(OK)
        await peer.to_end()

    async with ingress(tmp_path, script) as gate, gate.client() as client:
        await client.send(GET)
        assert await client.answer() == (200, {"content-length": "2", "connection": "close"}, b"ok")
        assert await client.to_end() == b""


@pytest.mark.parametrize("body", [b"Content-Length: 11\r\n\r\n01234567890", CHUNKED + b"b\r\n01234567890\r\n0\r\n\r\n"])
async def test_a_body_larger_than_configured_is_refused(tmp_path: Path, body: bytes) -> None:
    app = App()
    async with ingress(tmp_path, app, limits=IngressLimits(http=HttpLimits(exchange=ExchangeLimits(body_size=10)))) as gate:
        async with gate.client() as client:
            await client.send(POST + body)
            status, _, answer = await client.answer()
            assert (status, json.loads(answer)["code"]) == (413, "body_too_large")
        async with gate.client() as client:
            await client.send(POST + body.replace(b"01234567890", b"0123456789").replace(b"11", b"10").replace(b"b\r", b"a\r"))
            assert (await client.answer())[0] == 200
    assert app.requests == [(b"POST /", b"0123456789")]


async def test_what_is_logged_of_a_request_names_no_query_and_no_field(tmp_path: Path) -> None:
    async with ingress(tmp_path, answering(OK)) as gate, gate.client() as client:
        await client.send(b"GET /path?secret=1 HTTP/1.1\r\nHost: a.example\r\nCookie: secret\r\n\r\n")
        assert (await client.answer())[0] == 200
        await trio.testing.wait_all_tasks_blocked()
        (entry,) = gate.logged("http_request")
        assert "secret" not in repr(entry)
        assert (entry["client"], entry["method"], entry["path"], entry["status"], entry["answer_bytes"]) == (
            "203.0.113.7",
            "GET",
            "/path",
            200,
            2,
        )


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
            data = await peer.stream.receive_some(1 << 16)
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
