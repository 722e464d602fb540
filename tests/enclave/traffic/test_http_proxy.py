"""Mode http between a client and a customer process that both do as they please."""

import json
from pathlib import Path

import pytest
import trio
import trio.testing

from runtime.enclave.traffic.http_exchange import ExchangeLimits
from runtime.enclave.traffic.http_proxy import HttpLimits
from runtime.enclave.traffic.ingress import IngressLimits
from tests.enclave.traffic.harness import CHUNKED, GET, OK, POST, App, Peer, answering, ingress, parse_head


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
                b'forwarded: for="[2001:db8::7]";by=_parent;host="a.example";proto=https',
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
    async with ingress(tmp_path, answering(answer, answer)) as gate:
        async with gate.client() as client:
            await client.send(GET)
            assert await client.until(b"ok") == b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + OK
        async with gate.client() as client:
            await client.send(GET.replace(b"1.1", b"1.0"))
            assert (await client.answer())[0] == 200


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
        (entry,) = gate.requests
        assert "secret" not in repr(entry)
        assert (entry["asserted_client"], entry["method"], entry["path"], entry["status"], entry["answer_bytes"]) == (
            "203.0.113.7",
            "GET",
            "/path",
            200,
            2,
        )
