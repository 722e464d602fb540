"""Modes tcp and passthrough on a hub: who is refused, what is carried, and the one line of the journal for it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from runtime.enclave.traffic.tcp import Forwarder, TcpLimits
from runtime.net.endpoint import Endpoint, Tcp, Unix, bound, connect, listen
from runtime.net.hub import Work
from runtime.net.hub_relay import Means
from runtime.net.hub_socket import Plain, detached
from runtime.net.tls import TlsStream
from tests.support.hubs import reset, running_hub
from tests.support.relaying import all_of, is_reset, tcp_pair, tls_ends, unix_pair
from tests.support.sockets import open_descriptors

CLIENT = "203.0.113.7"


@dataclass
class Carrying:
    """A client before a customer process, whose end of the connection the test has."""

    client: TlsStream | trio.SocketStream
    events: list[tuple[str, dict[str, object]]] = field(default_factory=list)
    done: trio.Event = field(default_factory=trio.Event)

    def entry(self) -> tuple[str, dict[str, object]]:
        """The one event, without its time."""
        ((name, fields),) = self.events
        assert fields.pop("asserted_client") == CLIENT
        fields.pop("seconds", None)
        return name, fields


@asynccontextmanager
async def carrying(
    app: trio.SocketListener | Endpoint,
    *,
    is_tls: bool = False,
    is_ready: bool = True,
    limits: TcpLimits | None = None,
    over_tcp: bool = False,
) -> AsyncIterator[Carrying]:
    client, near = await (tcp_pair() if over_tcp else unix_pair())
    async with running_hub() as hub:
        with Means() as means:
            end, outer = (await tls_ends(hub, near, client)) if is_tls else (Plain(hub, detached(near)), client)
            running = Carrying(outer)
            forwarder = Forwarder(
                upstream=app if isinstance(app, Endpoint) else bound(app),
                ready=lambda: is_ready,
                log=lambda event, /, **fields: running.events.append((event, fields)),
                means=means,
                limits=limits or TcpLimits(),
            )

            async def carry(work: Work) -> None:
                await forwarder.carry(work, end, CLIENT)
                running.done.set()

            hub.start(carry)
            yield running
            await trio.aclose_forcefully(running.client)


BOTH = pytest.mark.parametrize("is_tls", [True, False], ids=["tcp", "passthrough"])


@BOTH
async def test_while_the_process_is_not_ready_a_client_is_closed(tmp_path: Path, *, is_tls: bool) -> None:
    async with await listen(Unix(str(tmp_path / "app"))) as app, carrying(app, is_tls=is_tls, is_ready=False) as running:
        assert await running.client.receive_some(1) == b""
        assert running.entry() == ("tcp_refused", {"code": "not_ready"})


@BOTH
async def test_where_nobody_listens_a_client_is_closed(tmp_path: Path, *, is_tls: bool) -> None:
    async with carrying(Unix(str(tmp_path / "app")), is_tls=is_tls) as running:
        assert await running.client.receive_some(1) == b""
        assert running.entry() == ("tcp_refused", {"code": "upstream_failed"})


async def test_a_process_that_takes_no_connection_is_waited_for_so_long(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with await listen(Unix(str(tmp_path / "app")), backlog=0) as app:
        waiting = await connect(bound(app))
        begun = trio.current_time()
        async with waiting, carrying(app, limits=TcpLimits(connect_timeout=3.0)) as running:
            assert await running.client.receive_some(1) == b""
            assert running.entry() == ("tcp_refused", {"code": "upstream_failed"})
        assert trio.current_time() - begun == pytest.approx(3, abs=0.2)


async def test_a_process_that_takes_connections_late_is_waited_for(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with await listen(Unix(str(tmp_path / "app")), backlog=0) as app, await connect(bound(app)), carrying(app) as running:
        await trio.sleep(1)
        await (await app.accept()).aclose()
        async with await app.accept() as process:
            await running.client.send_all(b"hello")
            assert await process.receive_some(10) == b"hello"


@BOTH
async def test_bytes_and_ends_are_carried_both_ways_and_counted(*, is_tls: bool) -> None:
    async with await listen(Tcp("127.0.0.1", 0)) as app, carrying(app, is_tls=is_tls) as running:
        async with await app.accept() as process:
            await running.client.send_all(b"hello")
            await running.client.send_eof()
            assert await all_of(process) == b"hello"
            await process.send_all(b"good bye!")
            await process.send_eof()
            assert await all_of(running.client) == b"good bye!"
        await running.done.wait()
        assert running.entry() == ("tcp_connection", {"request_bytes": 5, "answer_bytes": 9, "code": "eof"})


@BOTH
async def test_a_process_that_breaks_off_is_not_taken_for_one_that_has_finished(*, is_tls: bool) -> None:
    async with await listen(Tcp("127.0.0.1", 0)) as app, carrying(app, is_tls=is_tls, over_tcp=True) as running:
        process = await app.accept()
        await process.send_all(b"half an ans")
        assert await running.client.receive_some(100) == b"half an ans"
        reset(process)
        assert await is_reset(running.client)
        await running.done.wait()
        assert running.entry() == ("tcp_connection", {"request_bytes": 0, "answer_bytes": 11, "code": "broken"})


async def test_silence_ends_a_connection_where_the_limit_says_so(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with (
        await listen(Unix(str(tmp_path / "app"))) as app,
        carrying(app, limits=TcpLimits(idle=20.0)) as running,
        await app.accept() as process,
    ):
        assert await process.receive_some(1) == b""
        assert trio.current_time() == pytest.approx(20, abs=0.1)
        await running.done.wait()
        assert running.entry() == ("tcp_connection", {"request_bytes": 0, "answer_bytes": 0, "code": "idle"})


async def test_a_client_of_passthrough_sees_the_processs_own_bytes(tmp_path: Path) -> None:
    hello = b"\x16\x03\x01\x02\x00\x01"
    async with await listen(Unix(str(tmp_path / "app"))) as app, carrying(app) as running, await app.accept() as process:
        await running.client.send_all(hello)
        assert await process.receive_some(100) == hello
        await process.send_all(b"\x15\x03\x03")
        assert await running.client.receive_some(100) == b"\x15\x03\x03"


async def test_the_end_of_the_worker_leaves_no_descriptor(tmp_path: Path) -> None:
    before = open_descriptors()
    async with await listen(Unix(str(tmp_path / "app"))) as app:
        async with carrying(app):
            process = await app.accept()
        await process.aclose()
    assert open_descriptors() == before
