"""The enclave's end of the control link against hostile, stuck and dead parents."""

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock

from runtime.enclave.logs.backlog import SIZE
from runtime.protocol.framing import FRAME_MAX, encode_frame
from runtime.protocol.link import (
    Ack,
    Dropped,
    Journal,
    Log,
    Message,
    Metrics,
    MetricsWanted,
    Ping,
    Pong,
    Welcome,
)
from tests.support.link_ends import BARE_WELCOME, BOOT_ID, WELCOME, SpokenParent, enclave_side, sequences
from tests.support.sockets import open_descriptors


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
    async with enclave_side() as side:
        side.wire.handler = parent
        with trio.move_on_after(100) as scope:
            await side.link.connect()
        assert scope.cancelled_caught
        assert 3 <= side.wire.connections <= 110
        assert side.drains == []
        side.wire.handler = side.collecting(received)
        side.link.send_state("booting")
        assert await side.link.connect() == WELCOME
        side.nursery.start_soon(side.link.run)
        with trio.fail_after(5):
            await side.link.flush()
    assert sequences(received) == [1]


async def test_while_nobody_listens_the_link_waits_longer_each_time_up_to_a_second(autojump_clock: MockClock) -> None:
    async with enclave_side() as side:
        side.wire.is_down = True
        with trio.move_on_after(60):
            await side.link.connect()
        assert 55 <= side.wire.attempts <= 65
        side.wire.is_down = False
        assert await side.link.connect() == WELCOME


async def test_a_parent_that_is_back_after_an_hour_is_met_within_a_second(autojump_clock: MockClock) -> None:
    async with enclave_side() as side:
        side.wire.is_down = True
        side.nursery.start_soon(side.link.run)
        await trio.sleep(3600)
        side.wire.is_down = False
        await trio.sleep(1.1)
        assert side.link.is_up


async def test_a_parent_that_closes_after_each_message_loses_nothing_and_is_not_stormed(autojump_clock: MockClock) -> None:
    received: list[Message] = []

    async def closes_after_one(stream: trio.SocketStream) -> None:
        parent = SpokenParent(stream)
        await parent.welcome(BARE_WELCOME)
        message = await parent.receive()
        assert message is not None
        received.append(message)
        await parent.send(*(Ack(sequence=sequence) for sequence in sequences([message])))

    async with enclave_side() as side:
        side.wire.handler = closes_after_one
        for number in range(5):
            side.link.journal("info", "step", number=number)
        await side.link.connect()
        with trio.move_on_after(60):
            await side.link.run()
        assert 5 <= side.wire.connections <= 65
    steps = [message for message in received if isinstance(message, Journal) and message.event == "step"]
    assert [message.fields["number"] for message in steps] == [0, 1, 2, 3, 4]


async def test_a_parent_that_does_not_read_never_blocks_us_and_is_left_for_a_new_connection(autojump_clock: MockClock) -> None:
    received: list[Message] = []

    async def stuck(stream: trio.SocketStream) -> None:
        await SpokenParent(stream).welcome()
        side.wire.handler = side.collecting(received)
        await trio.sleep_forever()

    async with enclave_side() as side:
        side.wire.handler = stuck
        side.wire.send_buffer = 4096
        await side.link.connect()
        side.nursery.start_soon(side.link.run)
        for _ in range(500):
            side.link.journal("info", "step", **{f"field{number}": bytes(64) for number in range(32)})
            side.link.log("app", "stdout", bytes(16 * 1024))
        began = trio.current_time()
        await trio.sleep(1)
        assert side.wire.connections == 1
        with trio.fail_after(60):
            await side.link.flush()
        assert 25 < trio.current_time() - began < 60
        assert side.wire.connections == 2
    lines = [message for message in received if isinstance(message, Log)]
    events = [message for message in received if isinstance(message, Journal)]
    assert not any(isinstance(message, Dropped) for message in received)  # no line has pushed out an event
    assert len(events) == 501  # the 501st says that the link was lost
    assert len(lines) + sum(line.dropped for line in lines) == 500
    assert 1 << 21 < sum(len(line.line) for line in lines) <= SIZE


async def test_a_silent_parent_is_left_for_a_new_connection(autojump_clock: MockClock) -> None:
    async with enclave_side() as side:
        await side.link.connect()
        with trio.move_on_after(100):
            await side.link.run()
        assert side.wire.connections == 2


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
        await SpokenParent(stream).welcome()
        side.wire.handler = side.collecting(received)
        await stream.send_all(frame)
        await trio.sleep_forever()

    async with enclave_side() as side:
        side.wire.handler = hostile
        await side.link.connect()
        side.nursery.start_soon(side.link.run)
        await trio.sleep(2)
        [lost] = [message for message in received if isinstance(message, Journal)]
        assert lost.event == "link.lost"
        assert lost.fields["reason"] in {"malformed", "out_of_order", "unknown_type", "too_large"}


async def test_a_flood_of_requests_is_answered_once_for_many(autojump_clock: MockClock) -> None:
    received: list[Message] = []

    async def floods(stream: trio.SocketStream) -> None:
        parent = SpokenParent(stream)
        await parent.welcome()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(parent.receive_for_ever, received)
            for _ in range(100):
                await parent.send(*[Ping()] * 100, *[MetricsWanted()] * 100)

    async with enclave_side() as side:
        side.wire.handler = floods
        await side.link.connect()
        side.nursery.start_soon(side.link.run)
        await trio.sleep(10)
    assert Pong() in received
    assert Metrics(values={"requests_total": 3}) in received
    assert len(received) < 2000


async def test_a_later_welcome_does_not_change_what_the_first_one_said(autojump_clock: MockClock) -> None:
    async def lies_later(stream: trio.SocketStream) -> None:
        await SpokenParent(stream).welcome(Welcome(ticket=None, instance_id="i-other", host_parameters={"region": "elsewhere"}))
        await trio.sleep_forever()

    async def welcomes_once(stream: trio.SocketStream) -> None:
        await SpokenParent(stream).welcome()
        side.wire.handler = lies_later

    async with enclave_side() as side:
        side.wire.handler = welcomes_once
        await side.link.connect()
        side.nursery.start_soon(side.link.run)
        await trio.sleep(5)
        assert side.wire.connections == 2
        assert side.link.welcome == WELCOME


async def test_every_descriptor_is_back_after_many_resets(autojump_clock: MockClock) -> None:
    async def resets(stream: trio.SocketStream) -> None:
        parent = SpokenParent(stream)
        await parent.welcome(BARE_WELCOME)
        await parent.stream.send_all(b"\xff\xff\xff\xff")

    async with enclave_side() as side:
        before = open_descriptors()
        side.wire.handler = resets
        await side.link.connect()
        with trio.move_on_after(300):
            await side.link.run()
        assert side.wire.connections > 20
        assert side.wire.ended == side.wire.connections
        assert open_descriptors() == before
