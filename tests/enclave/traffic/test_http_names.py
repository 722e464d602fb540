"""What a request is called, and the one change of protocol: WebSocket."""

from pathlib import Path

import pytest
import trio

from tests.enclave.traffic.harness import OK, Peer, answering, ingress

TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
GET = b"GET / HTTP/1.1\r\nHost: a.example\r\n"
ASKED = (
    b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


def values(head: bytes, name: bytes) -> list[bytes]:
    return [line.partition(b": ")[2] for line in head.split(b"\r\n") if line.startswith(name + b": ")]


async def test_every_request_has_a_name_of_its_own_which_the_client_cannot_choose_and_the_log_knows(tmp_path: Path) -> None:
    async with ingress(tmp_path, answering(OK, OK, OK)) as gate, gate.client() as client:
        for _ in range(3):
            await client.send(GET + b"X-Request-Id: mine\r\nX_Request_Id: mine\r\n\r\n")
            await client.answer()
        seen = b"".join(peer.seen for peer in gate.upstreams)
        names = values(seen, b"x-request-id")
        assert len(set(names)) == 3
        assert b"mine" not in seen
        assert {str(entry["id"]).encode() for entry in gate.requests} <= set(names)


@pytest.mark.parametrize(
    "fields",
    [
        b"",
        b"traceparent: hello\r\ntracestate: a=b\r\n",
        b"traceparent: " + TRACE + b"\r\n",
        b"traceparent: 00-" + b"0" * 32 + b"-00f067aa0ba902b7-01\r\n",
    ],
)
async def test_a_trace_goes_on_if_it_is_one_and_begins_here_otherwise(tmp_path: Path, fields: bytes) -> None:
    async with ingress(tmp_path, answering(OK)) as gate, gate.client() as client:
        await client.send(GET + fields + b"\r\n")
        await client.answer()
        seen = gate.upstreams[0].seen
        (trace,), (name,) = values(seen, b"traceparent"), values(seen, b"x-request-id")
        assert trace == (TRACE if TRACE in fields else b"00-%b-%b-00" % (name, name[16:]))
        assert b"tracestate" not in seen


async def test_a_websocket_is_bytes_both_ways_from_the_first_one_behind_the_heads_to_the_end(tmp_path: Path) -> None:
    async def app(peer: Peer) -> None:
        head = await peer.until(b"\r\n\r\n")
        assert values(head, b"connection") == [b"upgrade"]
        assert values(head, b"upgrade") == [b"websocket"]
        await peer.send(SWITCHED + b"first")
        while data := await peer.receive():
            await peer.send(data.upper())
        await peer.send(b"last")

    async with ingress(tmp_path, app) as gate, gate.client() as client:
        await client.send(GET + ASKED + b"\r\n")
        with trio.fail_after(60):
            assert b"101" in await client.until(b"\r\n\r\n")
            assert await client.exactly(5) == b"first"
            for size in (1, 100_000):
                await client.send(b"x" * size)
                assert await client.exactly(size) == b"X" * size
            await client.stream.send_eof()
            assert await client.to_end() == b"last"
        await trio.testing.wait_all_tasks_blocked()
        (entry,) = gate.requests
        assert (entry["status"], entry["code"]) == (101, "ok")


@pytest.mark.parametrize(
    "fields",
    [
        ASKED.replace(b"websocket", b"h2c"),
        ASKED.replace(b"13", b"8"),
        ASKED.replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"short"),
        ASKED.replace(b", Upgrade", b""),
        ASKED + b"Content-Length: 0\r\n",
        ASKED + b"Upgrade: websocket\r\n",
        ASKED + b"Transfer-Encoding: chunked\r\n",
    ],
)
async def test_nothing_else_changes_the_protocol(tmp_path: Path, fields: bytes) -> None:
    async with ingress(tmp_path, answering(SWITCHED)) as gate, gate.client() as client:
        await client.send(GET + fields + b"\r\n")
        assert (await client.answer())[0] == 501
        assert gate.upstreams == []


@pytest.mark.parametrize("answer", [SWITCHED.replace(b"websocket", b"h2c"), SWITCHED.replace(b"Upgrade: websocket\r\n", b"")])
async def test_an_application_that_changes_to_something_else_is_not_followed(tmp_path: Path, answer: bytes) -> None:
    async with ingress(tmp_path, answering(answer)) as gate, gate.client() as client:
        await client.send(GET + ASKED + b"\r\n")
        assert (await client.answer())[0] == 502
