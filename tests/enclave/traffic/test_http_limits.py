"""How much one client, one connection and all together may have in mode http, and what whoever wants more is told."""

import json
from contextlib import suppress
from pathlib import Path

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from runtime.enclave.traffic.http_exchange import ExchangeLimits
from runtime.enclave.traffic.http_policy import HttpPolicy
from runtime.enclave.traffic.http_proxy import HttpLimits
from runtime.enclave.traffic.ingress import IngressLimits
from runtime.net.tls import TlsError
from tests.enclave.traffic.harness import CHUNKED, CLIENT, GET, OK, POST, App, Gate, Peer, answering, ingress

EVIDENCE = b"GET /.well-known/attestation HTTP/1.1\r\nHost: a.example\r\n\r\n"
WEBSOCKET = (
    b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


def limited(http: HttpLimits, *, connections_per_address: int = 1024) -> IngressLimits:
    return IngressLimits(http=http, connections_per_address=connections_per_address)


async def refusal(client: Peer, raw: bytes) -> tuple[int, str, dict[str, str]]:
    """Status, code and fields of an answer that is a problem document."""
    await client.send(raw)
    return await told(client)


async def told(client: Peer) -> tuple[int, str, dict[str, str]]:
    status, fields, body = await client.answer()
    assert fields["content-type"] == "application/problem+json"
    document = json.loads(body)
    assert document["status"] == status
    return status, document["code"], fields


async def drip(peer: Peer, data: bytes) -> None:
    """Sends a little every 20 seconds, until nobody takes it any more."""
    with suppress(trio.BrokenResourceError):
        while True:
            await peer.send(data)
            await trio.sleep(20)


async def silent(peer: Peer) -> None:
    """Reads and never answers."""
    await peer.to_end()


async def is_closed_without_a_word(gate: Gate, *, source: str | None = CLIENT) -> bool:
    """Whether a connection ends before its handshake does."""
    with suppress(TlsError, trio.BrokenResourceError):
        async with gate.client(source=source):
            return False
    return True


async def test_the_last_request_that_a_connection_may_make_is_said_to_be_it(tmp_path: Path) -> None:
    async with ingress(tmp_path, App(), limits=limited(HttpLimits(requests=3))) as gate, gate.client() as client:
        closing = []
        for _ in range(3):
            await client.send(GET)
            closing.append((await client.answer())[1].get("connection"))
        assert closing == [None, None, "close"]
        assert await client.to_end() == b""


async def test_what_is_pipelined_behind_the_last_request_is_not_carried_out(tmp_path: Path) -> None:
    app = App()
    async with ingress(tmp_path, app, limits=limited(HttpLimits(requests=2))) as gate, gate.client() as client:
        await client.send(GET * 5)
        assert (await client.to_end()).count(b"HTTP/1.1 200") == 2
    assert len(app.requests) == 2


async def test_requests_answered_here_count_for_their_connection_too(tmp_path: Path) -> None:
    async with ingress(tmp_path, App(), limits=limited(HttpLimits(requests=1))) as gate, gate.client() as client:
        await client.send(EVIDENCE)
        assert (await client.answer())[1]["connection"] == "close"


async def test_more_requests_than_may_be_under_way_are_told_to_come_again(tmp_path: Path) -> None:
    limits = limited(HttpLimits(in_flight=2))
    async with ingress(tmp_path, silent, limits=limits) as gate, gate.client() as one, gate.client() as two, gate.client() as three:
        await one.send(GET)
        await two.send(GET)
        await trio.testing.wait_all_tasks_blocked()
        status, code, fields = await refusal(three, GET)
        assert (status, code, fields["retry-after"]) == (503, "overloaded", "5")
        await trio.testing.wait_all_tasks_blocked()
        assert len(gate.upstreams) == 2
        assert gate.requests[-1]["code"] == "overloaded"


async def test_a_request_that_has_ended_makes_room_however_it_ended(tmp_path: Path) -> None:
    async with ingress(tmp_path, answering(OK, b""), limits=limited(HttpLimits(in_flight=1))) as gate:
        async with gate.client() as client:
            await client.send(GET)
            assert (await client.answer())[0] == 200
            await client.send(GET)  # the process keeps this one waiting, and the client goes
            await trio.testing.wait_all_tasks_blocked()
        await trio.testing.wait_all_tasks_blocked()
        async with gate.client() as client:
            await client.send(GET)
            assert (await client.answer())[0] == 200


async def test_a_websocket_takes_no_place_of_a_request(tmp_path: Path) -> None:
    async def script(peer: Peer) -> None:
        head = await peer.until(b"\r\n\r\n")
        await peer.send(SWITCHED if b"upgrade" in head else OK)
        await peer.to_end()

    limits = limited(HttpLimits(in_flight=1))
    async with ingress(tmp_path, script, limits=limits) as gate, gate.client() as socket, gate.client() as client:
        await socket.send(WEBSOCKET)
        assert b"101" in await socket.until(b"\r\n\r\n")
        await client.send(GET)
        assert (await client.answer())[0] == 200


async def test_an_address_that_asks_too_often_is_told_when_to_come_again(tmp_path: Path, autojump_clock: MockClock) -> None:
    limits = limited(HttpLimits(rate=1, burst=2))
    app = App()
    async with ingress(tmp_path, app, limits=limits) as gate, gate.client() as client:
        for _ in range(2):
            await client.send(GET)
            assert (await client.answer())[0] == 200
        status, code, fields = await refusal(client, GET)
        assert (status, code, fields["retry-after"]) == (429, "too_many_requests", "1")
        async with gate.client(source="203.0.113.8") as other:
            await other.send(GET)
            assert (await other.answer())[0] == 200
        await trio.sleep(1)
        await client.send(GET)
        assert (await client.answer())[0] == 200
    assert len(app.requests) == 4


async def test_the_parents_own_requests_are_not_counted_against_an_address(tmp_path: Path) -> None:
    async with ingress(tmp_path, App(), limits=limited(HttpLimits(rate=1, burst=1))) as gate, gate.client(source=None) as client:
        for _ in range(3):
            await client.send(GET)
            assert (await client.answer())[0] == 200


async def test_an_address_has_no_more_connections_than_it_may_and_others_have_theirs(tmp_path: Path) -> None:
    async with ingress(tmp_path, App(), limits=limited(HttpLimits(), connections_per_address=2)) as gate:
        async with gate.client(), gate.client():
            assert await is_closed_without_a_word(gate)
            assert gate.logged("ingress_ended") == [{"code": "too_many_connections"}]
            async with gate.client(source="203.0.113.8"), gate.client(source=None):
                pass
        await trio.testing.wait_all_tasks_blocked()
        assert not await is_closed_without_a_word(gate)


async def test_the_addresses_of_one_ipv6_network_are_one(tmp_path: Path) -> None:
    limits = limited(HttpLimits(), connections_per_address=1)
    async with ingress(tmp_path, App(), limits=limits) as gate, gate.client(source="2001:db8::1"):
        assert await is_closed_without_a_word(gate, source="2001:db8::ffff")
        assert not await is_closed_without_a_word(gate, source="2001:db8:0:1::1")


async def test_a_process_that_is_not_ready_is_a_503_or_no_connection_as_configured(tmp_path: Path) -> None:
    for closes in (False, True):
        (tmp_path / str(closes)).mkdir()
        async with ingress(tmp_path / str(closes), App(), closes_unready=closes) as gate:
            gate.readiness[0] = False
            if closes:
                assert await is_closed_without_a_word(gate)
                assert gate.logged("ingress_ended") == [{"code": "not_ready"}]
                gate.readiness[0] = True
                assert not await is_closed_without_a_word(gate)
            else:
                async with gate.client() as client:
                    status, code, fields = await refusal(client, GET)
                    assert (status, code, fields["retry-after"]) == (503, "not_ready", "5")


@pytest.mark.parametrize(
    ("line", "fields", "expected"),
    [
        (60, 0, 200),
        (64, 0, 200),
        (65, 0, 414),
        (20_000, 0, 414),
        (60, 2000, 431),
        (64, 2000, 431),
    ],
)
@pytest.mark.parametrize("is_whole", [True, False])
async def test_a_request_line_and_a_head_have_each_their_own_limit(
    tmp_path: Path, line: int, fields: int, expected: int, is_whole: bool
) -> None:
    start = b"GET /" + b"a" * (line - len("GET / HTTP/1.1")) + b" HTTP/1.1"
    assert len(start) == line
    raw = start + b"\r\nHost: a.example\r\nX: " + b"b" * fields + b"\r\n\r\n"
    limits = limited(HttpLimits(line_size=64, head_size=1024))
    async with ingress(tmp_path, App(), limits=limits) as gate, gate.client() as client:
        for piece in (raw,) if is_whole else (raw[:64], raw[64:66], raw[66:-1], raw[-1:]):
            await client.send(piece)
            await trio.testing.wait_all_tasks_blocked()
        status, answer, body = await client.answer()
        assert status == expected
        if expected != 200:
            assert json.loads(body)["code"] == {414: "target_too_long", 431: "head_too_large"}[expected]
            assert answer["connection"] == "close"


@pytest.mark.parametrize(
    ("host", "is_served"),
    [
        (b"a.example", True),
        (b"A.Example:8443", True),
        (b"a.example.", True),
        (b"b.example", False),
        (b"x.a.example", False),
        (b"203.0.113.1", False),
        (b"[2001:db8::1]:443", False),
    ],
)
async def test_a_host_that_the_certificate_is_not_for_is_misdirected(tmp_path: Path, host: bytes, is_served: bool) -> None:
    app = App()
    async with ingress(tmp_path, app) as gate, gate.client() as client:
        await client.send(GET.replace(b"a.example", host))
        if is_served:
            assert (await client.answer())[0] == 200
        else:
            status, code, fields = await told(client)
            assert (status, code, "connection" in fields) == (421, "misdirected_request", False)
            await client.send(GET)  # the connection is as good as before
            assert (await client.answer())[0] == 200
    assert len(app.requests) == 1


async def test_evidence_is_given_whatever_the_host_is_called(tmp_path: Path) -> None:
    async with ingress(tmp_path, App()) as gate, gate.client() as client:
        await client.send(EVIDENCE.replace(b"a.example", b"203.0.113.1"))
        assert (await client.answer())[0] == 200


async def test_only_the_methods_that_are_named_go_on(tmp_path: Path) -> None:
    app = App()
    policy = HttpPolicy(methods=frozenset({b"GET", b"POST"}))
    async with ingress(tmp_path, app, policy=policy) as gate, gate.client() as client:
        for method in (b"TRACE", b"DELETE", b"PROPFIND"):
            assert (await refusal(client, GET.replace(b"GET", method)))[:2] == (501, "method_not_supported")
        await client.send(GET)
        assert (await client.answer())[0] == 200
    assert app.requests == [(b"GET /", b"")]


@pytest.mark.parametrize(("framing", "drop"), [(b"Content-Length: 1000\r\n\r\n", b"x"), (CHUNKED, b"1\r\nx\r\n")])
async def test_a_body_that_drips_is_ended_at_its_total_deadline(
    tmp_path: Path, autojump_clock: MockClock, nursery: trio.Nursery, framing: bytes, drop: bytes
) -> None:
    limits = limited(HttpLimits(exchange=ExchangeLimits(body_timeout=100)))
    async with ingress(tmp_path, App(), limits=limits) as gate, gate.client() as client:
        began = trio.current_time()
        await client.send(POST + framing)
        nursery.start_soon(drip, client, drop)
        assert (await told(client))[:2] == (408, "body_timeout")
        assert trio.current_time() - began == pytest.approx(100, abs=1)


async def test_an_answer_that_drips_is_cut_at_the_deadline_of_its_exchange(tmp_path: Path, autojump_clock: MockClock) -> None:
    async def script(peer: Peer) -> None:
        await peer.until(b"\r\n\r\n")
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        await drip(peer, b"x")

    limits = limited(HttpLimits(exchange=ExchangeLimits(timeout=200)))
    async with ingress(tmp_path, script, limits=limits) as gate, gate.client() as client:
        began = trio.current_time()
        await client.send(GET)
        await client.to_end()
        assert trio.current_time() - began == pytest.approx(200, abs=3)
        await trio.testing.wait_all_tasks_blocked()
        assert gate.requests[0]["code"] == "exchange_timeout"


async def test_a_process_that_says_that_it_goes_on_and_never_answers_is_a_504_in_the_end(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async def script(peer: Peer) -> None:
        await peer.until(b"\r\n\r\n")
        await drip(peer, b"HTTP/1.1 102 Processing\r\n\r\n")

    async with ingress(tmp_path, script) as gate, gate.client() as client:
        await client.send(GET.replace(b"1.1", b"1.0"))
        assert (await told(client))[:2] == (504, "upstream_timeout")


async def test_a_websocket_may_last_longer_than_an_exchange(tmp_path: Path, autojump_clock: MockClock) -> None:
    async def script(peer: Peer) -> None:
        await peer.until(b"\r\n\r\n")
        await peer.send(SWITCHED)
        while data := await peer.receive():
            await peer.send(data)

    limits = limited(HttpLimits(exchange=ExchangeLimits(timeout=200)))
    async with ingress(tmp_path, script, limits=limits) as gate, gate.client() as client:
        await client.send(WEBSOCKET)
        await client.until(b"\r\n\r\n")
        for _ in range(10):
            await trio.sleep(100)
            await client.send(b"x")
            assert await client.exactly(1) == b"x"
