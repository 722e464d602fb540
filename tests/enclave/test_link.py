"""The enclave's end of the control link against good, hostile, stuck and dead parents."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from runtime.enclave.link import RING_BYTES, ParentLink, TicketUnavailable
from runtime.enclave.ring import Ring
from runtime.protocol.framing import FRAME_MAX, encode_frame
from runtime.protocol.link import (
    Ack,
    Drain,
    Dropped,
    Exit,
    Journal,
    Log,
    Message,
    Metrics,
    MetricsWanted,
    Ping,
    Pong,
    State,
    Ticket,
    TicketWanted,
    Welcome,
)
from runtime.protocol.link_state import LinkConnection
from tests.support.sockets import Wire, open_descriptors

BOOT_ID = b"B" * 16
WELCOME = Welcome(ticket=b"T" * 32, instance_id="i-0", host_parameters={"region": "here"})
BARE_WELCOME = Welcome(ticket=None, instance_id="i-0")


class Parent:
    """A parent that a test scripts: welcomes, then receives into `messages` and answers as told."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.connection = LinkConnection("parent")

    async def receive(self) -> Message | None:
        while (message := self.connection.next_message()) is None:
            data = await self.stream.receive_some(4096)
            if not data:
                return None
            self.connection.receive_data(data)
        return message

    async def send(self, *messages: Message) -> None:
        await self.stream.send_all(b"".join(self.connection.send(message) for message in messages))

    async def welcome(self, welcome: Welcome = WELCOME) -> None:
        await self.receive()
        await self.send(welcome)

    async def receive_for_ever(self, into: list[Message]) -> None:
        while (message := await self.receive()) is not None:
            into.append(message)


class Fixture:
    def __init__(self, nursery: trio.Nursery, **options: int) -> None:
        self.drains: list[int] = []
        self.wire = Wire(nursery, self.idle)
        self.link = ParentLink(
            self.wire.connect,
            boot_id=BOOT_ID,
            on_drain=self.drains.append,
            metrics=lambda: {"requests_total": 3},
            now=lambda: 1_700_000_000.5,
            **options,
        )
        self.nursery = nursery

    async def idle(self, stream: trio.SocketStream) -> None:
        parent = Parent(stream)
        await parent.welcome()
        await parent.receive_for_ever([])

    def collecting(self, into: list[Message], *, welcome: Welcome = WELCOME) -> Callable[[trio.SocketStream], Awaitable[None]]:
        """A good parent that acknowledges at once."""

        async def handle(stream: trio.SocketStream) -> None:
            parent = Parent(stream)
            await parent.welcome(welcome)
            while (message := await parent.receive()) is not None:
                into.append(message)
                if isinstance(message, State | Journal | Log | Exit):
                    await parent.send(Ack(sequence=message.sequence))

        return handle


@asynccontextmanager
async def linked(**options: int) -> AsyncIterator[Fixture]:
    async with trio.open_nursery() as nursery:
        fixture = Fixture(nursery, **options)
        yield fixture
        await fixture.link.aclose()
        nursery.cancel_scope.cancel()


def sequences(messages: list[Message]) -> list[int]:
    return [message.sequence for message in messages if isinstance(message, State | Journal | Log | Exit)]


async def test_reports_arrive_in_their_order_and_are_forgotten_once_acknowledged(autojump_clock: MockClock) -> None:
    received: list[Message] = []
    async with linked() as fixture:
        fixture.wire.handler = fixture.collecting(received)
        fixture.link.send_state("booting")
        assert await fixture.link.connect() == WELCOME == fixture.link.welcome
        fixture.nursery.start_soon(fixture.link.run)
        fixture.link.journal("info", "nsm.described", pcrs=32)
        fixture.link.log("app", "stdout", b"hello", 2)
        fixture.link.exited("app", code=0)
        fixture.link.exited("app", signal=9)
        with trio.fail_after(5):
            await fixture.link.flush()
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
        parent = Parent(stream)
        await parent.welcome()
        for _ in range(4):
            message = await parent.receive()
            assert message is not None
            first.append(message)
        await parent.send(Ack(sequence=2))
        fixture.wire.handler = fixture.collecting(second, welcome=BARE_WELCOME)

    async with linked() as fixture:
        fixture.wire.handler = acknowledges_two_of_four
        for number in range(4):
            fixture.link.journal("info", "step", number=number)
        await fixture.link.connect()
        fixture.nursery.start_soon(fixture.link.run)
        with trio.fail_after(60):
            await fixture.link.flush()
    assert sequences(first) == [1, 2, 3, 4]
    assert second[:2] == first[2:]
    assert [message.event for message in second if isinstance(message, Journal)] == ["step", "step", "link.lost"]


async def test_an_acknowledgement_of_what_was_never_sent_forgets_nothing(autojump_clock: MockClock) -> None:
    received: list[Message] = []

    async def acknowledges_the_future(stream: trio.SocketStream) -> None:
        parent = Parent(stream)
        await parent.welcome()
        await parent.send(Ack(sequence=2**64 - 1))
        await parent.receive_for_ever(received)

    async with linked() as fixture:
        fixture.wire.handler = acknowledges_the_future
        await fixture.link.connect()
        fixture.nursery.start_soon(fixture.link.run)
        await trio.sleep(1)
        fixture.link.send_state("ready")
        await trio.sleep(1)
        assert sequences(received) == [1]
        with pytest.raises(trio.TooSlowError), trio.fail_after(1):
            await fixture.link.flush()


async def test_a_full_ring_drops_the_oldest_and_reports_how_many(autojump_clock: MockClock) -> None:
    received: list[Message] = []
    async with linked(ring_frames=10) as fixture:
        fixture.wire.handler = fixture.collecting(received)
        for number in range(25):
            fixture.link.log("app", "stdout", b"%d" % number)
        await fixture.link.connect()
        fixture.nursery.start_soon(fixture.link.run)
        with trio.fail_after(5):
            await fixture.link.flush()
    assert received[0] == Dropped(total=15)
    assert sequences(received) == list(range(16, 26))


def test_the_ring_is_bounded_in_bytes_too_and_keeps_the_newest() -> None:
    ring = Ring(most_frames=1000, most_bytes=100)
    for _ in range(50):
        ring.push(lambda sequence: b"%010d" % sequence)
    assert ring.dropped == 40
    assert ring.take_unsent() == b"".join(b"%010d" % sequence for sequence in range(41, 51))
    ring.push(lambda _: bytes(1000))
    assert ring.dropped == 50
    assert ring.take_unsent() == bytes(1000)
    ring.acknowledge(51)
    assert ring.is_empty


def test_dropping_what_was_already_sent_does_not_skip_what_was_not() -> None:
    ring = Ring(most_frames=3, most_bytes=1000)
    for _ in range(3):
        ring.push(lambda sequence: b"%d" % sequence)
    assert ring.take_unsent() == b"123"
    ring.push(lambda sequence: b"%d" % sequence)
    assert ring.take_unsent() == b"4"
    ring.resend()
    assert ring.take_unsent() == b"234"


async def never_welcomes(stream: trio.SocketStream) -> None:
    await trio.sleep_forever()


async def closes_at_once(stream: trio.SocketStream) -> None:
    await trio.lowlevel.checkpoint()


async def sends_garbage(stream: trio.SocketStream) -> None:
    await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n" * 100)
    await trio.sleep_forever()


async def sends_a_huge_frame(stream: trio.SocketStream) -> None:
    await stream.send_all((FRAME_MAX + 1).to_bytes(4, "big") + bytes(1000))
    await trio.sleep_forever()


async def welcomes_in_another_version(stream: trio.SocketStream) -> None:
    await stream.send_all(encode_frame(["welcome", {0: 2, 1: None, 2: "i-0", 3: {}}]))
    await trio.sleep_forever()


async def drains_before_the_welcome(stream: trio.SocketStream) -> None:
    await stream.send_all(encode_frame(["drain", {0: 0}]))
    await trio.sleep_forever()


@pytest.mark.parametrize(
    "parent",
    [
        never_welcomes,
        closes_at_once,
        sends_garbage,
        sends_a_huge_frame,
        welcomes_in_another_version,
        drains_before_the_welcome,
    ],
)
async def test_a_parent_that_does_not_welcome_us_is_tried_again_until_one_does(
    parent: Callable[[trio.SocketStream], Awaitable[None]], autojump_clock: MockClock
) -> None:
    received: list[Message] = []
    async with linked() as fixture:
        fixture.wire.handler = parent
        with trio.move_on_after(100) as scope:
            await fixture.link.connect()
        assert scope.cancelled_caught
        assert 3 <= fixture.wire.connections <= 20
        assert fixture.drains == []
        fixture.wire.handler = fixture.collecting(received)
        fixture.link.send_state("booting")
        assert await fixture.link.connect() == WELCOME
        fixture.nursery.start_soon(fixture.link.run)
        with trio.fail_after(5):
            await fixture.link.flush()
    assert sequences(received) == [1]


async def test_while_nobody_listens_the_link_waits_longer_each_time(autojump_clock: MockClock) -> None:
    async with linked() as fixture:
        fixture.wire.is_down = True
        with trio.move_on_after(60):
            await fixture.link.connect()
        assert 8 <= fixture.wire.attempts <= 15
        fixture.wire.is_down = False
        assert await fixture.link.connect() == WELCOME


async def test_a_parent_that_closes_after_each_message_loses_nothing_and_is_not_stormed(autojump_clock: MockClock) -> None:
    received: list[Message] = []

    async def closes_after_one(stream: trio.SocketStream) -> None:
        parent = Parent(stream)
        await parent.welcome(BARE_WELCOME)
        message = await parent.receive()
        assert message is not None
        received.append(message)
        await parent.send(*(Ack(sequence=sequence) for sequence in sequences([message])))

    async with linked() as fixture:
        fixture.wire.handler = closes_after_one
        for number in range(5):
            fixture.link.journal("info", "step", number=number)
        await fixture.link.connect()
        with trio.move_on_after(60):
            await fixture.link.run()
        assert 5 <= fixture.wire.connections <= 15
    steps = [message for message in received if isinstance(message, Journal) and message.event == "step"]
    assert [message.fields["number"] for message in steps] == [0, 1, 2, 3, 4]


async def test_a_parent_that_does_not_read_never_blocks_us_and_is_left_for_a_new_connection(autojump_clock: MockClock) -> None:
    received: list[Message] = []

    async def stuck(stream: trio.SocketStream) -> None:
        await Parent(stream).welcome()
        fixture.wire.handler = fixture.collecting(received)
        await trio.sleep_forever()

    async with linked() as fixture:
        fixture.wire.handler = stuck
        fixture.wire.send_buffer = 4096
        await fixture.link.connect()
        fixture.nursery.start_soon(fixture.link.run)
        for _ in range(500):
            fixture.link.log("app", "stdout", bytes(16 * 1024))
        began = trio.current_time()
        await trio.sleep(1)
        assert fixture.wire.connections == 1
        with trio.fail_after(60):
            await fixture.link.flush()
        assert 25 < trio.current_time() - began < 60
        assert fixture.wire.connections == 2
    assert isinstance(received[0], Dropped)
    assert received[0].total + len(sequences(received)) == 501  # the 501st says that the link was lost
    assert sum(len(message.line) for message in received if isinstance(message, Log)) <= RING_BYTES


async def test_a_silent_parent_is_left_for_a_new_connection(autojump_clock: MockClock) -> None:
    async with linked() as fixture:
        await fixture.link.connect()
        with trio.move_on_after(100):
            await fixture.link.run()
        assert fixture.wire.connections == 2


@pytest.mark.parametrize(
    "frame",
    [
        encode_frame(["welcome", {0: 1, 1: None, 2: "i-0", 3: {}}]),
        encode_frame(["pong", {}]),
        encode_frame(["hello", {0: [1], 1: BOOT_ID}]),
        encode_frame(["nonsense", {}]),
        encode_frame(["drain", {0: "now"}]),
        b"\xff" * 8,
    ],
)
async def test_a_parent_that_breaks_the_protocol_is_left_and_the_reason_journalled(frame: bytes, autojump_clock: MockClock) -> None:
    received: list[Message] = []

    async def hostile(stream: trio.SocketStream) -> None:
        await Parent(stream).welcome()
        fixture.wire.handler = fixture.collecting(received)
        await stream.send_all(frame)
        await trio.sleep_forever()

    async with linked() as fixture:
        fixture.wire.handler = hostile
        await fixture.link.connect()
        fixture.nursery.start_soon(fixture.link.run)
        await trio.sleep(2)
        [lost] = [message for message in received if isinstance(message, Journal)]
        assert lost.event == "link.lost"
        assert lost.fields["reason"] in {"malformed", "out_of_order", "unknown_type", "too_large"}


async def test_a_flood_of_requests_is_answered_once_for_many(autojump_clock: MockClock) -> None:
    received: list[Message] = []

    async def floods(stream: trio.SocketStream) -> None:
        parent = Parent(stream)
        await parent.welcome()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(parent.receive_for_ever, received)
            for _ in range(100):
                await parent.send(*[Ping()] * 100, *[MetricsWanted()] * 100)

    async with linked() as fixture:
        fixture.wire.handler = floods
        await fixture.link.connect()
        fixture.nursery.start_soon(fixture.link.run)
        await trio.sleep(10)
    assert Pong() in received
    assert Metrics(values={"requests_total": 3}) in received
    assert len(received) < 2000


async def test_drain_is_handed_on_each_time_that_it_is_asked(autojump_clock: MockClock) -> None:
    async def drains(stream: trio.SocketStream) -> None:
        parent = Parent(stream)
        await parent.welcome()
        await parent.send(Drain(deadline_ms=20_000), Drain(deadline_ms=1))
        await parent.receive_for_ever([])

    async with linked() as fixture:
        fixture.wire.handler = drains
        await fixture.link.connect()
        fixture.nursery.start_soon(fixture.link.run)
        await trio.sleep(1)
        assert fixture.drains == [20_000, 1]


async def test_tickets_are_never_handed_out_twice(autojump_clock: MockClock) -> None:
    async def sells(stream: trio.SocketStream) -> None:
        parent = Parent(stream)
        await parent.welcome()
        for answer in (b"U" * 32, None, b"V" * 32):
            while await parent.receive() != TicketWanted():
                pass
            await parent.send(Ticket(ticket=answer))
        await parent.receive_for_ever([])

    async with linked() as fixture:
        fixture.wire.handler = sells
        await fixture.link.connect()
        fixture.nursery.start_soon(fixture.link.run)
        with trio.fail_after(5):
            assert await fixture.link.ticket() == b"T" * 32
            assert await fixture.link.ticket() == b"U" * 32
            with pytest.raises(TicketUnavailable):
                await fixture.link.ticket()
            assert await fixture.link.ticket() == b"V" * 32


async def test_a_wish_for_a_ticket_outlives_the_connection_it_was_asked_on(autojump_clock: MockClock) -> None:
    async def drops_the_wish(stream: trio.SocketStream) -> None:
        parent = Parent(stream)
        await parent.welcome(BARE_WELCOME)
        fixture.wire.handler = sells
        await parent.receive()

    async def sells(stream: trio.SocketStream) -> None:
        parent = Parent(stream)
        await parent.welcome(BARE_WELCOME)
        while await parent.receive() != TicketWanted():
            pass
        await parent.send(Ticket(ticket=b"U" * 32))
        await parent.receive_for_ever([])

    async with linked() as fixture:
        fixture.wire.handler = drops_the_wish
        await fixture.link.connect()
        fixture.nursery.start_soon(fixture.link.run)
        with trio.fail_after(30):
            assert await fixture.link.ticket() == b"U" * 32
        assert fixture.wire.connections == 2


async def test_a_later_welcome_does_not_change_what_the_first_one_said(autojump_clock: MockClock) -> None:
    async def lies_later(stream: trio.SocketStream) -> None:
        await Parent(stream).welcome(Welcome(ticket=None, instance_id="i-other", host_parameters={"region": "elsewhere"}))
        await trio.sleep_forever()

    async def welcomes_once(stream: trio.SocketStream) -> None:
        await Parent(stream).welcome()
        fixture.wire.handler = lies_later

    async with linked() as fixture:
        fixture.wire.handler = welcomes_once
        await fixture.link.connect()
        fixture.nursery.start_soon(fixture.link.run)
        await trio.sleep(5)
        assert fixture.wire.connections == 2
        assert fixture.link.welcome == WELCOME


async def test_texts_that_are_too_long_or_not_unicode_are_cut_and_escaped(autojump_clock: MockClock) -> None:
    received: list[Message] = []
    async with linked() as fixture:
        fixture.wire.handler = fixture.collecting(received)
        fixture.link.journal("info", "odd", long="x" * 1000, surrogate="a\udcff", data=bytes(1000))
        fixture.link.log("app", "stdout", bytes(100_000))
        await fixture.link.connect()
        fixture.nursery.start_soon(fixture.link.run)
        with trio.fail_after(5):
            await fixture.link.flush()
    journal, log = received
    assert isinstance(journal, Journal)
    assert isinstance(log, Log)
    assert journal.fields == {"long": "x" * 200, "surrogate": "a\\udcff", "data": bytes(64)}
    assert len(log.line) == 32 * 1024


async def test_every_descriptor_is_back_after_many_resets(autojump_clock: MockClock) -> None:
    async def resets(stream: trio.SocketStream) -> None:
        parent = Parent(stream)
        await parent.welcome(BARE_WELCOME)
        await parent.stream.send_all(b"\xff\xff\xff\xff")

    async with linked() as fixture:
        before = open_descriptors()
        fixture.wire.handler = resets
        await fixture.link.connect()
        with trio.move_on_after(300):
            await fixture.link.run()
        assert fixture.wire.connections > 20
        assert fixture.wire.ended == fixture.wire.connections
        assert open_descriptors() == before
