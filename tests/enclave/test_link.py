"""The enclave's end of the control link with parents that keep to the protocol."""

import pytest
import trio
from trio.testing import MockClock

from runtime.enclave.link import TicketUnavailable
from runtime.enclave.ring import Ring
from runtime.protocol.link import (
    Ack,
    Drain,
    Dropped,
    Exit,
    Journal,
    Log,
    Message,
    State,
    Ticket,
    TicketWanted,
)
from tests.support.link_ends import BARE_WELCOME, WELCOME, SpokenParent, enclave_side, sequences


async def test_reports_arrive_in_their_order_and_are_forgotten_once_acknowledged(autojump_clock: MockClock) -> None:
    received: list[Message] = []
    async with enclave_side() as side:
        side.wire.handler = side.collecting(received)
        side.link.send_state("booting")
        assert await side.link.connect() == WELCOME == side.link.welcome
        side.nursery.start_soon(side.link.run)
        side.link.journal("info", "nsm.described", pcrs=32)
        side.link.log("app", "stdout", b"hello", 2)
        side.link.exited("app", code=0)
        side.link.exited("app", signal=9)
        with trio.fail_after(5):
            await side.link.flush()
        assert received == [
            State(sequence=1, name="booting", unix_ms=1_700_000_000_500),
            Journal(sequence=2, level="info", event="nsm.described", fields={"pcrs": 32}),
            Log(sequence=3, process="app", stream="stdout", line=b"hello", dropped=2),
            Exit(sequence=4, process="app", code=0),
            Exit(sequence=5, process="app", signal=9),
        ]


async def test_what_was_not_acknowledged_is_sent_again_after_a_reconnect_and_nothing_else(autojump_clock: MockClock) -> None:
    first: list[Message] = []
    second: list[Message] = []

    async def acknowledges_two_of_four(stream: trio.SocketStream) -> None:
        parent = SpokenParent(stream)
        await parent.welcome()
        for _ in range(4):
            message = await parent.receive()
            assert message is not None
            first.append(message)
        await parent.send(Ack(sequence=2))
        side.wire.handler = side.collecting(second, welcome=BARE_WELCOME)

    async with enclave_side() as side:
        side.wire.handler = acknowledges_two_of_four
        for number in range(4):
            side.link.journal("info", "step", number=number)
        await side.link.connect()
        side.nursery.start_soon(side.link.run)
        with trio.fail_after(60):
            await side.link.flush()
    assert sequences(first) == [1, 2, 3, 4]
    assert second[:2] == first[2:]
    assert [message.event for message in second if isinstance(message, Journal)] == ["step", "step", "link.lost"]


async def test_an_acknowledgement_of_what_was_never_sent_forgets_nothing(autojump_clock: MockClock) -> None:
    received: list[Message] = []

    async def acknowledges_the_future(stream: trio.SocketStream) -> None:
        parent = SpokenParent(stream)
        await parent.welcome()
        await parent.send(Ack(sequence=2**64 - 1))
        await parent.receive_for_ever(received)

    async with enclave_side() as side:
        side.wire.handler = acknowledges_the_future
        await side.link.connect()
        side.nursery.start_soon(side.link.run)
        await trio.sleep(1)
        side.link.send_state("ready")
        await trio.sleep(1)
        assert sequences(received) == [1]
        with pytest.raises(trio.TooSlowError), trio.fail_after(1):
            await side.link.flush()


async def test_a_full_ring_drops_the_oldest_and_reports_how_many(autojump_clock: MockClock) -> None:
    received: list[Message] = []
    async with enclave_side(ring_frames=10) as side:
        side.wire.handler = side.collecting(received)
        for number in range(25):
            side.link.journal("info", "step", number=number)
        await side.link.connect()
        side.nursery.start_soon(side.link.run)
        with trio.fail_after(5):
            await side.link.flush()
    assert received[0] == Dropped(total=15)
    assert sequences(received) == list(range(16, 26))


def taken(ring: Ring) -> bytes:
    """What was unsent, and is sent now."""
    frames = [*ring.unsent()]
    for sequence, _ in frames:
        ring.mark_sent(sequence)
    return b"".join(frame for _, frame in frames)


def test_the_ring_is_bounded_in_bytes_too_and_keeps_the_newest() -> None:
    ring = Ring(most_frames=1000, most_bytes=100)
    for _ in range(50):
        ring.push(lambda sequence: b"%010d" % sequence)
    assert ring.dropped == 40
    assert taken(ring) == b"".join(b"%010d" % sequence for sequence in range(41, 51))
    ring.push(lambda _: bytes(1000))
    assert ring.dropped == 50
    assert taken(ring) == bytes(1000)
    ring.acknowledge(51)
    assert ring.is_empty


def test_dropping_what_was_already_sent_does_not_skip_what_was_not() -> None:
    ring = Ring(most_frames=3, most_bytes=1000)
    for _ in range(3):
        ring.push(lambda sequence: b"%d" % sequence)
    assert taken(ring) == b"123"
    ring.push(lambda sequence: b"%d" % sequence)
    assert taken(ring) == b"4"
    ring.resend()
    assert taken(ring) == b"234"


async def test_drain_is_handed_on_each_time_that_it_is_asked(autojump_clock: MockClock) -> None:
    async def drains(stream: trio.SocketStream) -> None:
        parent = SpokenParent(stream)
        await parent.welcome()
        await parent.send(Drain(deadline_ms=20_000), Drain(deadline_ms=1))
        await parent.receive_for_ever([])

    async with enclave_side() as side:
        side.wire.handler = drains
        await side.link.connect()
        side.nursery.start_soon(side.link.run)
        await trio.sleep(1)
        assert side.drains == [20_000, 1]


async def test_tickets_are_never_handed_out_twice(autojump_clock: MockClock) -> None:
    async def sells(stream: trio.SocketStream) -> None:
        parent = SpokenParent(stream)
        await parent.welcome()
        for answer in (b"U" * 32, None, b"V" * 32):
            while await parent.receive() != TicketWanted():
                pass
            await parent.send(Ticket(ticket=answer))
        await parent.receive_for_ever([])

    async with enclave_side() as side:
        side.wire.handler = sells
        await side.link.connect()
        side.nursery.start_soon(side.link.run)
        with trio.fail_after(5):
            assert await side.link.ticket() == b"T" * 32
            assert await side.link.ticket() == b"U" * 32
            with pytest.raises(TicketUnavailable):
                await side.link.ticket()
            assert await side.link.ticket() == b"V" * 32


async def test_a_wish_for_a_ticket_outlives_the_connection_it_was_asked_on(autojump_clock: MockClock) -> None:
    async def drops_the_wish(stream: trio.SocketStream) -> None:
        parent = SpokenParent(stream)
        await parent.welcome(BARE_WELCOME)
        side.wire.handler = sells
        await parent.receive()

    async def sells(stream: trio.SocketStream) -> None:
        parent = SpokenParent(stream)
        await parent.welcome(BARE_WELCOME)
        while await parent.receive() != TicketWanted():
            pass
        await parent.send(Ticket(ticket=b"U" * 32))
        await parent.receive_for_ever([])

    async with enclave_side() as side:
        side.wire.handler = drops_the_wish
        await side.link.connect()
        side.nursery.start_soon(side.link.run)
        with trio.fail_after(30):
            assert await side.link.ticket() == b"U" * 32
        assert side.wire.connections == 2


async def test_texts_that_are_too_long_or_not_unicode_are_cut_and_escaped(autojump_clock: MockClock) -> None:
    received: list[Message] = []
    async with enclave_side() as side:
        side.wire.handler = side.collecting(received)
        side.link.journal("info", "odd", long="x" * 1000, surrogate="a\udcff", data=bytes(1000))
        side.link.log("app", "stdout", bytes(100_000))
        await side.link.connect()
        side.nursery.start_soon(side.link.run)
        with trio.fail_after(5):
            await side.link.flush()
    journal, log = received
    assert isinstance(journal, Journal)
    assert isinstance(log, Log)
    assert journal.fields == {"long": "x" * 200, "surrogate": "a\\udcff", "data": bytes(64)}
    assert len(log.line) == 32 * 1024
