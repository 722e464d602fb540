"""The parent's end of the control link against hostile enclaves."""

import pytest
import trio
from trio.testing import MockClock

from runtime.parent.console import RECENT
from runtime.parent.control import NotConnected
from runtime.protocol.framing import FRAME_MAX, encode_frame
from runtime.protocol.link import (
    Ack,
    Drain,
    Hello,
    Journal,
    Log,
    Ping,
    Pong,
    State,
    Ticket,
    TicketWanted,
    Welcome,
    encode_message,
)
from tests.support.link_ends import BOOT_ID, parent_side
from tests.support.sockets import open_descriptors


async def test_an_enclave_cannot_make_the_parent_storm_the_provisioner(autojump_clock: MockClock) -> None:
    async with parent_side() as side:
        enclave = await side.enclave()
        for number in range(50):
            enclave = await side.enclave()
            await enclave.hello(number.to_bytes(16, "big"))
        for _ in range(50):
            await enclave.send(*[TicketWanted()] * 100)
            await enclave.receive_but_ping()
        assert side.tickets.sold <= 6
        await trio.sleep(11)
        await enclave.send(TicketWanted())
        assert isinstance(await enclave.receive_but_ping(), Ticket)
        assert side.tickets.sold <= 9


@pytest.mark.parametrize(
    "first",
    [
        encode_message(State(sequence=1, name="ready", unix_ms=0)),
        encode_message(Pong()),
        encode_message(Ack(sequence=1)),
        encode_message(Welcome(ticket=None, instance_id="i-0")),
        encode_frame(["hello", {0: [2], 1: BOOT_ID}]),
        encode_frame(["hello", {0: [1]}]),
        encode_frame(["nonsense", {}]),
        (FRAME_MAX + 1).to_bytes(4, "big"),
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x00\x00\x00\x00",
    ],
)
async def test_a_wrong_first_frame_closes_the_connection_and_buys_no_ticket(first: bytes, autojump_clock: MockClock) -> None:
    async with parent_side() as side:
        enclave = await side.enclave()
        await enclave.stream.send_all(first)
        assert await enclave.is_closed()
        assert side.tickets.sold == 0
        assert side.control.boot is None
        assert len(side.wire.errors) == 1


@pytest.mark.parametrize("start", [b"", b"\x00\x00", b"\x00\x00\x00\x20half of it"])
async def test_an_enclave_that_never_says_hello_is_cut_off(start: bytes, autojump_clock: MockClock) -> None:
    async with parent_side() as side:
        enclave = await side.enclave()
        await enclave.stream.send_all(start)
        began = trio.current_time()
        assert await enclave.is_closed()
        assert trio.current_time() - began == pytest.approx(10)


@pytest.mark.parametrize(
    "frame",
    [
        encode_message(Hello(boot_id=BOOT_ID)),
        encode_message(Ping()),
        encode_message(Drain(deadline_ms=0)),
        encode_frame(["state", {0: "ready", 1: "", 2: 0, 3: 0}]),
        encode_frame(["log", {0: 1, 1: "app", 2: "stdout", 3: bytes(40_000), 4: 0}]),
        (FRAME_MAX + 1).to_bytes(4, "big"),
    ],
)
async def test_an_enclave_that_breaks_the_protocol_later_is_cut_off_and_may_come_again(
    frame: bytes, autojump_clock: MockClock
) -> None:
    async with parent_side() as side:
        enclave = await side.enclave()
        await enclave.hello()
        await enclave.stream.send_all(frame)
        assert await enclave.is_closed()
        assert not side.control.is_connected
        again = await side.enclave()
        await again.hello()
        assert side.control.is_connected


async def test_a_silent_enclave_is_pinged_and_then_cut_off(autojump_clock: MockClock) -> None:
    async with parent_side() as side:
        enclave = await side.enclave()
        await enclave.hello()
        pings = 0
        while await enclave.receive() == Ping():
            pings += 1
        assert pings in {12, 13}
        assert trio.current_time() == pytest.approx(60)


async def test_an_enclave_that_sends_and_never_reads_is_cut_off(autojump_clock: MockClock) -> None:
    async with parent_side() as side:
        side.wire.send_buffer = 2048
        enclave = await side.enclave()
        await enclave.hello()

        async def flood() -> None:
            for sequence in range(1, 100_000):
                await enclave.send(Journal(sequence=sequence, level="info", event="flood"))
                await trio.testing.wait_all_tasks_blocked()

        with pytest.raises(trio.BrokenResourceError), trio.fail_after(200):
            await flood()
        await trio.testing.wait_all_tasks_blocked()
        assert side.wire.ended == 1


async def test_ten_thousand_frames_are_taken_in_bounded_memory(autojump_clock: MockClock) -> None:
    async with parent_side() as side:
        enclave = await side.enclave()
        await enclave.hello()
        acknowledged = 0

        async def read() -> None:
            nonlocal acknowledged
            while acknowledged < 10_000:
                message = await enclave.receive_but_ping()
                assert isinstance(message, Ack)
                assert message.sequence > acknowledged
                acknowledged = message.sequence

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            for start in range(1, 10_001, 100):
                await enclave.send(
                    *(Log(sequence=n, process="app", stream="stderr", line=b"x" * 50) for n in range(start, start + 100))
                )
        assert acknowledged == 10_000
        assert len(side.console.recent) == RECENT


async def test_an_enclave_that_reads_nothing_makes_requests_fail_instead_of_pile_up(autojump_clock: MockClock) -> None:
    async with parent_side() as side:
        enclave = await side.enclave()
        await enclave.hello()

        def drain_often() -> None:
            for _ in range(1000):
                side.control.drain(1000)

        with pytest.raises(NotConnected, match="does not read"):
            drain_often()


async def test_nothing_an_enclave_says_reaches_the_terminal_unescaped(autojump_clock: MockClock) -> None:
    async with parent_side() as side:
        enclave = await side.enclave()
        await enclave.hello()
        hostile = "\x1b[2J\x1b]0;owned\x07\r\n2026 info parent ready\u202e\u200b\x9b"
        await enclave.send(
            Log(sequence=1, process="a\nb", stream="stdout", line=hostile.encode() + b"\xff\x00"),
            Journal(sequence=2, level="info", event="step", fields={"text": hostile, "event": "forged", "time": "forged"}),
        )
        assert await enclave.receive_but_ping() == Ack(sequence=2)
        shown = side.stderr.getvalue()
        assert all(char.isprintable() for char in shown.replace("\n", ""))
        assert len(shown.splitlines()) == 3
        assert "\\x1b[2J" in shown
        assert side.shown("journal")[0]["event"] == "step"
        assert side.shown("journal")[0]["fields.event"] == "forged"


async def test_every_descriptor_is_back_after_resets(autojump_clock: MockClock) -> None:
    async with parent_side() as side:
        before = open_descriptors()
        for number in range(30):
            enclave = await side.enclave()
            if number % 3:
                await enclave.hello()
            if number % 3 == 2:
                await enclave.stream.send_all(b"\xff" * 4)
            await trio.aclose_forcefully(enclave.stream)
            await trio.testing.wait_all_tasks_blocked()
        assert side.wire.ended == 30
        assert open_descriptors() == before
