"""An ingress that drains: who has asked for something gets it, who has not is not waited for."""

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from runtime.enclave.traffic.ingress import IngressLimits
from runtime.net.clock import utc_now
from runtime.net.tls import TlsStream, client_context
from tests.enclave.traffic.harness import GET, HOST, OK, App, Peer, ingress, proxy_header


async def test_a_client_between_two_requests_is_let_go_at_once(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with ingress(tmp_path, App()) as gate, gate.client() as client:
        await client.send(GET)
        assert (await client.answer())[0] == 200
        gate.draining.set()
        with trio.fail_after(0.2):
            assert await client.to_end() == b""
        assert [entry["status"] for entry in gate.requests] == [200]


async def test_a_client_that_has_said_nothing_yet_gets_a_moment_and_no_more(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with ingress(tmp_path, App()) as gate, gate.client() as client:
        silent, undecided = await gate.raw(), await gate.raw()
        await undecided.send_all(proxy_header())
        await trio.testing.wait_all_tasks_blocked()
        gate.draining.set()
        with trio.fail_after(1.1):
            assert await client.to_end() == b""
            assert await Peer(silent).to_end() == b""
            assert await Peer(undecided).to_end() == b""
        await silent.aclose()
        await undecided.aclose()
        assert [entry["code"] for entry in gate.logged("ingress_ended")] == ["proxy_header_timeout"]
        assert [entry["code"] for entry in gate.logged("handshake_failed")] == ["handshake_timeout"]


async def test_a_request_that_comes_on_an_open_connection_is_answered_as_its_last(tmp_path: Path) -> None:
    async with ingress(tmp_path, App()) as gate, gate.client() as fresh, gate.client() as used:
        await used.send(GET)
        assert (await used.answer())[1].get("connection") is None
        gate.draining.set()
        for client in (used, fresh):
            await client.send(GET)
            status, fields, body = await client.answer()
            assert (status, fields["connection"], body) == (200, "close", b"ok")
            assert await client.to_end() == b""


async def test_a_head_that_has_begun_may_be_completed(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with ingress(tmp_path, App()) as gate, gate.client() as client:
        await client.send(GET[:7])
        await trio.testing.wait_all_tasks_blocked(0.05)
        gate.draining.set()
        await trio.sleep(5)
        await client.send(GET[7:])
        assert (await client.answer())[0] == 200


async def test_an_answer_that_has_begun_is_finished_however_long_it_takes(tmp_path: Path, autojump_clock: MockClock) -> None:
    async def script(peer: Peer) -> None:
        await peer.until(b"\r\n\r\n")
        await peer.send(OK[:-1])
        await asked.wait()
        await trio.sleep(50)
        await peer.send(OK[-1:])
        await peer.to_end()

    asked = trio.Event()
    async with ingress(tmp_path, script) as gate, gate.client() as client:
        await client.send(GET)
        assert (await client.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
        gate.draining.set()
        asked.set()
        assert await client.to_end() == b"ok"


async def test_a_relay_of_mode_tcp_goes_on(tmp_path: Path, autojump_clock: MockClock) -> None:
    async def script(peer: Peer) -> None:
        while data := await peer.receive():
            await peer.send(data)

    async with ingress(tmp_path, script, mode="tcp") as gate, gate.client() as client:
        await client.send(b"before")
        assert await client.exactly(6) == b"before"
        gate.draining.set()
        await trio.sleep(100)
        await client.send(b"after")
        assert await client.exactly(5) == b"after"


async def test_whoever_waits_in_the_queue_is_still_served_and_the_next_is_refused(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with ingress(tmp_path, App()) as gate:
        waiting = [await gate.raw() for _ in range(50)]
        gate.draining.set()
        for stream in waiting:
            await stream.send_all(proxy_header())
            tls = await TlsStream.connect(stream, client_context(None, now=utc_now()), server_name=HOST, check_name=False)
            await tls.send_all(GET)
            assert (await Peer(tls).answer())[0] == 200
            await tls.aclose()
        await trio.sleep(1)
        with pytest.raises(ConnectionRefusedError):
            await gate.raw()


async def test_an_ingress_at_its_limit_does_not_keep_the_listener_open(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with ingress(tmp_path, App(), limits=IngressLimits(connections=1)) as gate, gate.client() as served:
        await served.send(GET)
        assert (await served.answer())[0] == 200
        gate.draining.set()
        await trio.sleep(1)
        with pytest.raises(ConnectionRefusedError):
            await gate.raw()
