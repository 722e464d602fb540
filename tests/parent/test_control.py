"""The parent's end of the control link with enclaves that keep to the protocol."""

import pytest
import trio
from trio.testing import MockClock

from runtime.enclave.link import ParentLink
from runtime.parent.control import NotConnected
from runtime.protocol.link import (
    Ack,
    Drain,
    Dropped,
    Exit,
    Journal,
    Log,
    Metrics,
    MetricsWanted,
    Ping,
    Pong,
    State,
    Ticket,
    TicketWanted,
)
from tests.support.link_ends import BOOT_ID, parent_side


async def test_both_real_ends_work_together_across_a_reconnect(autojump_clock: MockClock) -> None:
    async with parent_side() as side:
        streams: list[trio.SocketStream] = []

        async def connect() -> trio.SocketStream:
            streams.append(await side.wire.connect())
            return streams[-1]

        drains: list[int] = []
        link = ParentLink(connect, boot_id=BOOT_ID, on_drain=drains.append, metrics=lambda: {"requests_total": 7}, now=lambda: 1.5)
        link.send_state("booting")
        welcome = await link.connect()
        assert (welcome.instance_id, dict(welcome.host_parameters)) == ("i-0123", {"region": "here"})
        side.nursery.start_soon(link.run)
        link.log("app", "stdout", b"listening")
        with trio.fail_after(5):
            assert await link.ticket() == bytes([1]) * 32
            assert await link.ticket() == bytes([2]) * 32
            assert await side.control.metrics() == {"requests_total": 7}
            await link.flush()
        await trio.aclose_forcefully(streams[0])
        link.send_state("ready")
        link.exited("app", signal=15)
        with trio.fail_after(30):
            await link.flush()
        side.control.drain(5000)
        await trio.sleep(1)
        assert drains == [5000]
        assert len(streams) == 2
        assert side.events("state") == ["booting", "ready"]
        assert side.events("log") == ["app"]
        assert [record["signal"] for record in side.shown("exit")] == [15]
        assert side.control.boot is not None
        assert side.control.boot.state == "ready"
        await link.aclose()


async def test_a_report_that_is_sent_again_is_shown_once_and_acknowledged_again(autojump_clock: MockClock) -> None:
    async with parent_side() as side:
        reports = (
            State(sequence=1, name="booting", unix_ms=0),
            Journal(sequence=2, level="info", event="step"),
            Log(sequence=3, process="app", stream="stdout", line=b"x"),
        )
        for count in (2, 3):
            enclave = await side.enclave()
            await enclave.hello()
            await enclave.send(*reports[:count])
            assert await enclave.receive_but_ping() == Ack(sequence=count)
            await enclave.stream.aclose()
            await trio.testing.wait_all_tasks_blocked()
        assert side.events("state") == ["booting"]
        assert side.events("journal") == ["step"]
        assert side.events("log") == ["app"]
        enclave = await side.enclave()
        await enclave.hello(b"C" * 16)
        await enclave.send(State(sequence=1, name="attesting", unix_ms=0))
        assert await enclave.receive_but_ping() == Ack(sequence=1)
        assert side.events("state") == ["booting", "attesting"]


async def test_a_boot_gets_one_ticket_with_its_welcome_and_more_when_it_asks(autojump_clock: MockClock) -> None:
    async with parent_side() as side:
        enclave = await side.enclave()
        assert (await enclave.hello()).ticket == bytes([1]) * 32
        await enclave.send(TicketWanted())
        assert await enclave.receive_but_ping() == Ticket(ticket=bytes([2]) * 32)
        again = await side.enclave()
        assert (await again.hello()).ticket is None
        rebooted = await side.enclave()
        assert (await rebooted.hello(b"C" * 16)).ticket == bytes([3]) * 32


async def test_without_a_provisioner_there_is_a_welcome_without_a_ticket(autojump_clock: MockClock) -> None:
    async with parent_side(with_tickets=False) as side:
        enclave = await side.enclave()
        assert (await enclave.hello()).ticket is None
        await enclave.send(TicketWanted())
        assert await enclave.receive_but_ping() == Ticket(ticket=None)


async def test_a_provisioner_that_refuses_does_not_keep_the_link_down(autojump_clock: MockClock) -> None:
    async with parent_side() as side:
        side.tickets.failure = "revoked"
        enclave = await side.enclave()
        assert (await enclave.hello()).ticket is None
        side.tickets.failure = None
        again = await side.enclave()
        assert (await again.hello()).ticket == bytes([1]) * 32
        [shown] = [record for record in side.shown("parent") if record["event"] == "ticket.none"]
        assert shown["reason"] == "revoked"


async def test_a_provisioner_that_hangs_delays_the_welcome_by_seconds_only(autojump_clock: MockClock) -> None:
    async with parent_side() as side:
        side.tickets.is_hanging = True
        enclave = await side.enclave()
        with trio.fail_after(6):
            assert (await enclave.hello()).ticket is None
        assert "ticket.none" in side.events()


async def test_an_enclave_that_answers_pings_stays(autojump_clock: MockClock) -> None:
    async with parent_side() as side:
        enclave = await side.enclave()
        await enclave.hello()
        while trio.current_time() < 1000:
            assert await enclave.receive() == Ping()
            await enclave.send(Pong())
        assert side.control.is_connected


async def test_the_newest_connection_is_the_one_that_counts(autojump_clock: MockClock) -> None:
    async with parent_side() as side:
        old = await side.enclave()
        await old.hello()
        new = await side.enclave()
        await new.hello()
        assert await old.is_closed()
        side.control.drain(1000)
        assert await new.receive_but_ping() == Drain(deadline_ms=1000)
        assert "enclave.reconnected" in side.events()


async def test_a_drain_is_asked_again_after_a_reconnect_with_the_time_that_is_left(autojump_clock: MockClock) -> None:
    async with parent_side() as side:
        with pytest.raises(NotConnected):
            side.control.drain(1000)
        enclave = await side.enclave()
        await enclave.hello()
        side.control.drain(20_000)
        assert await enclave.receive_but_ping() == Drain(deadline_ms=20_000)
        await enclave.stream.aclose()
        await trio.sleep(5)
        again = await side.enclave()
        await again.hello()
        drain = await again.receive_but_ping()
        assert isinstance(drain, Drain)
        assert drain.deadline_ms == pytest.approx(15_000, abs=10)
        rebooted = await side.enclave()
        await rebooted.hello(b"C" * 16)
        with trio.move_on_after(10) as scope:
            await rebooted.receive_but_ping()
        assert scope.cancelled_caught


async def test_metrics_are_asked_for_and_returned(autojump_clock: MockClock) -> None:
    async with parent_side() as side:
        with pytest.raises(NotConnected):
            await side.control.metrics()
        enclave = await side.enclave()
        await enclave.hello()

        async def answer() -> None:
            assert await enclave.receive_but_ping() == MetricsWanted()
            await enclave.send(Metrics(values={"a": -1}))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            assert await side.control.metrics() == {"a": -1}


async def test_what_the_enclave_dropped_is_shown_as_it_grows(autojump_clock: MockClock) -> None:
    async with parent_side() as side:
        enclave = await side.enclave()
        await enclave.hello()
        await enclave.send(Dropped(total=5), Dropped(total=5), Dropped(total=9), Exit(sequence=10, process="app", code=1))
        assert await enclave.receive_but_ping() == Ack(sequence=10)
        assert [(record["count"], record["total"]) for record in side.shown("dropped")] == [(5, 5), (4, 9)]
        assert [record["level"] for record in side.shown("exit")] == ["warning"]


@pytest.mark.parametrize("last", ["ready", "stopped"])
async def test_an_enclave_that_is_gone_without_a_last_word_is_missed_and_one_that_ended_is_not(
    autojump_clock: MockClock, last: str
) -> None:
    async with parent_side() as side:
        enclave = await side.enclave()
        await enclave.hello()
        await enclave.send(State(sequence=1, name="stopped" if last == "stopped" else "ready", reason="", unix_ms=0))
        await enclave.stream.send_eof()
        assert await enclave.is_closed()
        missed = [record for record in side.shown("parent") if record["event"] == "enclave.disconnected"]
        assert [(record["state"], record["reason"]) for record in missed] == ([("ready", "closed")] if last == "ready" else [])


async def test_an_enclave_that_falls_silent_or_makes_no_sense_is_missed_too(autojump_clock: MockClock) -> None:
    async with parent_side() as side:
        for said in (b"", b"\xff" * 8):
            enclave = await side.enclave()
            await enclave.hello()
            if said:
                await enclave.stream.send_all(said)
            assert await enclave.is_closed()
        missed = [record["reason"] for record in side.shown("parent") if record["event"] == "enclave.disconnected"]
        assert missed == ["broken", "broken"]
