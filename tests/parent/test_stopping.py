"""A parent that is told to end: the enclave drains first, clients get what is theirs, and nothing is waited for without end."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from runtime.net.endpoint import connect, listen
from runtime.parent.config import Limits
from runtime.parent.control import NotConnected
from runtime.protocol.link import Drain, State
from tests.parent.running import Parent, parent
from tests.support.link_ends import parent_side

LIMITS = replace(Limits(), stop_grace=7.0)


def shown(running: Parent) -> list[str]:
    return [line.split()[3] for line in running.stderr.getvalue().splitlines()]


@asynccontextmanager
async def relayed(running: Parent) -> AsyncIterator[tuple[trio.SocketStream, trio.SocketStream]]:
    """A client and its connection at the enclave."""
    listener = await listen(running.config.enclave.ingress)
    client = await connect(running.listening.public)
    async with listener, client, await listener.accept() as enclave:
        assert len(await enclave.receive_some(28)) == 28
        yield client, enclave


async def test_the_enclave_drains_within_the_grace_and_its_last_word_ends_the_parent(tmp_path: Path) -> None:
    drains: list[int] = []

    def on_drain(deadline_ms: int) -> None:
        drains.append(deadline_ms)
        link.send_state("draining")
        link.send_state("stopped")

    async with parent(tmp_path, limits=LIMITS) as running, running.enclave(on_drain=on_drain) as link:
        link.send_state("ready")
        await link.flush()
        os.kill(os.getpid(), signal.SIGTERM)
        with trio.fail_after(60):
            await running.ended.wait()
    assert drains == [7000]
    assert shown(running) == ["ready", "enclave.booted", "ready", "stopping", "drain.asked", "draining", "stopped", "stopped"]


async def test_an_enclave_that_does_not_stop_is_waited_for_until_just_after_the_deadline(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with parent(tmp_path, limits=LIMITS) as running, running.enclave() as link:
        link.send_state("ready")
        await link.flush()
        began = trio.current_time()
        os.kill(os.getpid(), signal.SIGTERM)
        await running.ended.wait()
        assert 7 <= trio.current_time() - began <= 8.5
        assert "drain.overdue" in shown(running)


async def test_a_second_signal_does_not_wait_for_the_enclave(tmp_path: Path) -> None:
    async with parent(tmp_path, limits=replace(Limits(), stop_grace=3600.0)) as running, running.enclave():
        os.kill(os.getpid(), signal.SIGTERM)
        await running.until_shown("drain.asked")
        os.kill(os.getpid(), signal.SIGTERM)
        with trio.fail_after(60):
            await running.ended.wait()


async def test_clients_get_what_the_enclave_sent_before_it_stopped(tmp_path: Path) -> None:
    async with parent(tmp_path, limits=LIMITS) as running, running.enclave() as link, relayed(running) as (client, enclave):
        os.kill(os.getpid(), signal.SIGTERM)
        await running.until_shown("drain.asked")
        with pytest.raises(OSError, match="connect"):
            await connect(running.listening.public)
        await enclave.send_all(b"the answer")
        await enclave.send_eof()
        link.send_state("stopped")
        assert b"".join([bytes(data) async for data in client]) == b"the answer"
        await client.send_eof()
        with trio.fail_after(60):
            await running.ended.wait()


async def test_a_client_that_does_not_go_holds_a_parent_without_enclave_for_a_moment_only(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with parent(tmp_path, limits=LIMITS) as running, running.enclave() as link, relayed(running):
        link.send_state("stopped")
        await link.flush()
        began = trio.current_time()
        os.kill(os.getpid(), signal.SIGTERM)
        await running.ended.wait()
        assert trio.current_time() - began < 3


async def test_while_the_enclave_drains_new_clients_are_closed_at_once_and_the_others_go_on(tmp_path: Path) -> None:
    async with parent(tmp_path) as running, running.enclave() as link, relayed(running) as (client, enclave):
        assert (await running.ask("POST", "/drain?deadline_ms=60000")).status == 202
        await refused(running)
        await client.send_all(b"more")
        assert await enclave.receive_some() == b"more"
        link.send_state("draining")
        await link.flush()
        await refused(running)
    async with parent(tmp_path) as running, running.enclave() as link, relayed(running):
        link.send_state("draining")  # asked by a signal inside
        await link.flush()
        await refused(running)


async def refused(running: Parent) -> None:
    """A new client is closed without a byte, and nobody at the enclave hears of it."""
    async with await connect(running.listening.public) as client:
        with trio.fail_after(60), suppress(trio.BrokenResourceError):
            assert await client.receive_some() == b""


async def test_a_second_drain_only_brings_the_deadline_forward(autojump_clock: MockClock) -> None:
    async with parent_side() as side:
        enclave = await side.enclave()
        await enclave.hello()
        assert not side.control.is_closing
        side.control.drain(10_000)
        await trio.sleep(1)
        side.control.drain(60_000)
        assert side.control.drain_seconds_left == pytest.approx(9)
        side.control.drain(2_000)
        assert side.control.drain_seconds_left == pytest.approx(2)
        again = await side.enclave()
        await again.hello()
        drain = await again.receive_but_ping()
        assert isinstance(drain, Drain)
        assert drain.deadline_ms == pytest.approx(2000, abs=50)


async def test_an_enclave_that_boots_after_the_drain_of_another_is_not_drained(autojump_clock: MockClock) -> None:
    async with parent_side() as side:
        with pytest.raises(NotConnected):
            side.control.drain(1000)
        assert side.control.drain_seconds_left is None
        enclave = await side.enclave()
        await enclave.hello()
        side.control.drain(1000)
        await enclave.send(State(sequence=1, name="stopped", unix_ms=0))
        with trio.fail_after(1):
            await side.control.until_over()
        assert side.control.is_closing
        other = await side.enclave()
        await other.hello(b"C" * 16)
        assert not side.control.is_closing


async def test_waiting_for_the_end_of_an_enclave_ends_when_another_has_booted(autojump_clock: MockClock) -> None:
    async with parent_side() as side:
        enclave = await side.enclave()
        await enclave.hello()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(side.control.until_over)
            await trio.sleep(1)
            other = await side.enclave()
            await other.hello(b"C" * 16)
