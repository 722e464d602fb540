"""What comes before HTTP, and the modes that carry none: PROXY headers, handshakes, relays, slow and rude clients."""

import os
from pathlib import Path

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from runtime.enclave.traffic.ingress import Ingress, IngressLimits, serve_ingress
from runtime.net.clock import utc_now
from runtime.net.endpoint import Unix, connect, listen
from runtime.net.tls import TlsStream, client_context, server_context
from tests.enclave.traffic.attesters import ScriptedAttester
from tests.enclave.traffic.harness import CLIENT, CONFIG_DIGEST, GET, HOST, App, Peer, identity, ingress, proxy_header

HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"


async def echo(peer: Peer) -> None:
    """Says back what it hears, and ends when the other side has ended."""
    while data := await peer.receive():
        await peer.send(data)
    await peer.send(b" end")
    await peer.stream.send_eof()


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
        HELLO * 4,
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c" + bytes(12),
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x04" + bytes(4),
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff" + bytes(100),
    ],
)
async def test_a_connection_without_a_proxy_header_is_closed_without_a_word(tmp_path: Path, data: bytes) -> None:
    async with ingress(tmp_path, echo) as gate, await gate.raw() as stream:
        await stream.send_all(data)
        with trio.fail_after(60):
            assert await Peer(stream).to_end() == b""
        await trio.testing.wait_all_tasks_blocked()
        assert len(gate.logged("ingress_ended")) == 1
        assert gate.upstreams == []


async def test_a_proxy_header_may_come_in_pieces_or_together_with_what_follows(tmp_path: Path) -> None:
    async with ingress(tmp_path, App()) as gate:
        for pieces in ([proxy_header()[:7], proxy_header()[7:20], proxy_header()[20:]], [proxy_header()]):
            async with await gate.raw() as stream:
                for piece in pieces:
                    await stream.send_all(piece)
                    await trio.testing.wait_all_tasks_blocked()
                tls = await TlsStream.connect(stream, client_context(None, now=utc_now()), server_name=HOST, check_name=False)
                await tls.send_all(GET)
                assert (await Peer(tls).answer())[2] == b"ok"
                await tls.aclose()


async def test_a_proxy_header_that_does_not_come_is_waited_for_five_seconds_in_all(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with ingress(tmp_path, echo) as gate, await gate.raw() as stream:
        began = trio.current_time()
        for byte in proxy_header()[:4]:
            await stream.send_all(bytes((byte,)))
            await trio.sleep(1)
        assert await Peer(stream).to_end() == b""
        assert trio.current_time() - began == pytest.approx(5, abs=0.1)
        await trio.testing.wait_all_tasks_blocked()
        assert gate.logged("ingress_ended") == [{"code": "proxy_header_timeout"}]


@pytest.mark.parametrize("hello", [b"", HELLO])
async def test_a_handshake_that_does_not_go_on_is_waited_for_ten_seconds_in_all(
    tmp_path: Path, autojump_clock: MockClock, hello: bytes
) -> None:
    async with ingress(tmp_path, echo) as gate, await gate.raw() as stream:
        await stream.send_all(proxy_header())
        began = trio.current_time()
        for byte in hello[:9]:
            await stream.send_all(bytes((byte,)))
            await trio.sleep(1)
        await Peer(stream).to_end()
        assert trio.current_time() - began == pytest.approx(10, abs=0.1)
        await trio.testing.wait_all_tasks_blocked()
        assert gate.logged("handshake_failed") == [{"asserted_client": CLIENT, "code": "handshake_timeout"}]


async def test_a_handshake_of_nonsense_gets_an_alert_and_an_end(tmp_path: Path) -> None:
    async with ingress(tmp_path, echo) as gate, await gate.raw() as stream:
        await stream.send_all(proxy_header() + b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
        answer = await Peer(stream).to_end()
        assert b"HTTP" not in answer
        await trio.testing.wait_all_tasks_blocked()
        assert gate.logged("handshake_failed") == [{"asserted_client": CLIENT, "code": "tls_handshake"}]


async def test_silent_and_half_handshakes_do_not_hold_up_an_honest_client(tmp_path: Path) -> None:
    async with ingress(tmp_path, App()) as gate:
        stalled = []
        for number in range(200):
            stream = await gate.raw()
            await stream.send_all([b"", proxy_header()[:8], proxy_header(), proxy_header() + HELLO][number % 4])
            stalled.append(stream)
        began = trio.current_time()
        async with gate.client() as client:
            await client.send(GET)
            assert (await client.answer())[2] == b"ok"
        assert trio.current_time() - began < 2  # generous; it takes milliseconds
        for stream in stalled:
            await stream.aclose()


async def test_mode_tcp_carries_bytes_and_their_ends_both_ways(tmp_path: Path) -> None:
    async with ingress(tmp_path, echo, mode="tcp") as gate:
        async with gate.client() as client:
            await client.send(b"hello")
            assert await client.exactly(5) == b"hello"
            await client.stream.send_eof()
            assert await client.to_end() == b" end"
        await trio.testing.wait_all_tasks_blocked()
        (entry,) = gate.logged("tcp_connection")
        assert (entry["request_bytes"], entry["answer_bytes"], entry["code"]) == (5, 9, "eof")


@pytest.mark.parametrize("mode", ["tcp", "passthrough"])
async def test_modes_without_http_close_when_there_is_nobody_to_talk_to(tmp_path: Path, mode: str) -> None:
    async with ingress(tmp_path, None, mode="tcp" if mode == "tcp" else "passthrough") as gate:
        async with await gate.raw() as stream:
            await stream.send_all(proxy_header())
            if mode == "tcp":
                tls = await TlsStream.connect(stream, client_context(None, now=utc_now()), server_name=HOST, check_name=False)
                assert await Peer(tls).to_end() == b""
                await tls.aclose()
            else:
                assert await Peer(stream).to_end() == b""
        assert [entry["code"] for entry in gate.logged("tcp_refused")] == ["upstream_failed"]


async def test_mode_tcp_closes_while_the_application_is_not_ready(tmp_path: Path) -> None:
    async with ingress(tmp_path, echo, mode="tcp") as gate:
        gate.readiness[0] = False
        async with gate.client() as client:
            assert await client.to_end() == b""
        assert gate.upstreams == []


async def test_mode_passthrough_leaves_tls_to_the_application(tmp_path: Path) -> None:
    async with ingress(tmp_path, echo, mode="passthrough") as gate, await gate.raw() as stream:
        await stream.send_all(proxy_header() + HELLO)
        assert await Peer(stream).exactly(len(HELLO)) == HELLO
        assert gate.upstreams[0].seen == HELLO


async def test_a_new_certificate_is_served_from_the_next_handshake_on(tmp_path: Path) -> None:
    async with ingress(tmp_path, App()) as gate, gate.client() as before:
        gate.context = server_context([identity("b.example")])
        async with gate.client() as after:
            for client, name in ((before, HOST), (after, "b.example")):
                assert isinstance(client.stream, TlsStream)
                assert client.stream.peer_certificate == identity(name).chain[0]
                await client.send(GET.replace(HOST.encode(), name.encode()))
                assert (await client.answer())[2] == b"ok"


async def test_a_drain_lets_what_is_under_way_finish(tmp_path: Path) -> None:
    listener = await listen(Unix(str(tmp_path / "ingress")))
    app = await listen(Unix(str(tmp_path / "app")))
    context = server_context([identity(HOST)])
    settings = Ingress(
        mode="tcp",
        upstream=Unix(str(tmp_path / "app")),
        tls_context=lambda: context,
        attester=ScriptedAttester(),
        config_digest=CONFIG_DIGEST,
        ready=lambda: True,
        log=lambda event, /, **fields: None,
    )
    ended = trio.Event()

    async def run(task_status: trio.TaskStatus[None]) -> None:
        await serve_ingress(listener, settings, task_status=task_status)
        ended.set()

    async with app, trio.open_nursery() as nursery:
        await nursery.start(run)
        stream = await connect(Unix(str(tmp_path / "ingress")))
        await stream.send_all(proxy_header())
        tls = await TlsStream.connect(stream, client_context(None, now=utc_now()), server_name=HOST, check_name=False)
        async with await app.accept() as upstream:
            settings.draining.set()
            await tls.send_all(b"late")
            assert await upstream.receive_some() == b"late"
            assert not ended.is_set()
            await tls.aclose()
        with trio.fail_after(60):
            await ended.wait()


async def test_clients_that_reset_leave_no_descriptor_behind(tmp_path: Path) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count of names, not paths

    async with ingress(tmp_path, App()) as gate:
        async with gate.client() as client:
            await client.send(GET)
            await client.answer()  # over the connection to the application that is kept
        before = descriptors()
        for number in range(60):
            async with gate.client() as client:
                if number % 3:
                    await client.send(GET)
                if number % 3 == 2:
                    await client.answer()
        with trio.fail_after(60):
            while descriptors() > before:
                await trio.lowlevel.checkpoint()


async def test_limits_hold_for_connections_and_the_others_wait_their_turn(tmp_path: Path) -> None:
    async with ingress(tmp_path, App(), limits=IngressLimits(connections=1)) as gate:
        first = await gate.raw()
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:

            async def second() -> None:
                async with gate.client() as client:
                    await client.send(GET)
                    assert (await client.answer())[2] == b"ok"

            nursery.start_soon(second)
            await trio.testing.wait_all_tasks_blocked()
            assert gate.upstreams == []
            await first.aclose()
        assert len(gate.upstreams) == 1
