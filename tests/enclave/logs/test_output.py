"""From bytes of a pipe to messages at the parent: exact, limited, masked, in order, and once."""

from collections.abc import Awaitable, Callable

import trio
from trio.testing import MockClock

from runtime.enclave.logs.output import TOLD_SECONDS, Logs, open_logs
from runtime.protocol.bundle import Secret, SecretValue
from runtime.protocol.link import Ack, Exit, Journal, Log, Message
from runtime.protocol.link_values import Stream
from tests.enclave.test_config import SMALLEST, loaded
from tests.support.link_ends import BOOT_ID, EnclaveSide, SpokenParent, enclave_side, sequences

SECRETS = {"TOKEN": Secret(delivery="env", value=SecretValue(b"correct horse battery"))}


def opened(side: EnclaveSide, log: str = "", secrets: dict[str, Secret] | None = None) -> Logs:
    return open_logs(loaded(f"{SMALLEST}[log]\n{log}"), secrets or {}, side.link, boot_id=BOOT_ID)


async def met(side: EnclaveSide) -> None:
    await side.link.connect()
    side.nursery.start_soon(side.link.run)


async def flushed(side: EnclaveSide) -> None:
    with trio.fail_after(100):
        await side.link.flush()


def lines(received: list[Message], stream: Stream = "stdout") -> list[Log]:
    return [message for message in received if isinstance(message, Log) and message.stream == stream]


def written(received: list[Message], stream: Stream = "stdout") -> bytes:
    return b"".join(log.line + (b"" if log.is_partial else b"\n") for log in lines(received, stream))


def dropped(received: list[Message], stream: Stream = "stdout") -> int:
    return sum(log.dropped for log in lines(received, stream))


def journal(received: list[Message], event: str) -> list[dict[str, object]]:
    return [dict(message.fields) for message in received if isinstance(message, Journal) and message.event == event]


async def test_binary_output_arrives_byte_for_byte(autojump_clock: MockClock) -> None:
    received: list[Message] = []
    every_byte = bytes(range(256)) * 40 + b"\r\n\n" + bytes(20_000) + b"\xff\xfe end without a line end"
    async with enclave_side() as side:
        side.wire.handler = side.collecting(received)
        output = opened(side).open("app", "stdout")
        await met(side)
        for start in range(0, len(every_byte), 777):
            output.feed(every_byte[start : start + 777])
        output.close()
        await flushed(side)
    assert written(received) == every_byte
    assert dropped(received) == 0
    assert max(len(log.line) for log in lines(received)) == 8192


async def test_a_process_that_ends_is_reported_behind_its_last_line(autojump_clock: MockClock) -> None:
    received: list[Message] = []
    async with enclave_side() as side:
        side.wire.handler = side.collecting(received)
        output = opened(side).open("app", "stderr")
        await met(side)
        assert output.feed(b"first\nsecond\nabout to fa") == b"second"
        assert output.close() == b"about to fa"
        side.link.exited("app", code=1)
        await flushed(side)
    assert [type(message) for message in received] == [Log, Log, Log, Exit]
    assert [log.is_partial for log in lines(received, "stderr")] == [False, False, True]


async def test_a_secret_is_masked_whatever_the_writes_and_the_length_of_lines(autojump_clock: MockClock) -> None:
    received: list[Message] = []
    text = b"x" * 250 + b"correct horse battery" + b"y" * 250 + b"correct horse battery\n"
    async with enclave_side() as side:
        side.wire.handler = side.collecting(received)
        logs = opened(side, 'max_line_size = "256B"', SECRETS)
        whole, single = logs.open("app", "stdout"), logs.open("app", "stderr")
        await met(side)
        whole.feed(text)
        for byte in text:
            single.feed(bytes((byte,)))
        side.link.journal("info", "step", path="/correct horse battery")
        await flushed(side)
    masked = b"x" * 250 + b"[secret TOKEN]" + b"y" * 250 + b"[secret TOKEN]\n"
    assert written(received) == written(received, "stderr") == masked
    assert journal(received, "step") == [{"path": "/[secret TOKEN]"}]


async def test_a_process_over_its_rate_loses_whole_lines_that_are_counted_and_told_once(autojump_clock: MockClock) -> None:
    received: list[Message] = []
    async with enclave_side() as side:
        side.wire.handler = side.collecting(received)
        logs = opened(side, "rate = 10\nburst = 20")
        output, other = logs.open("app", "stdout"), logs.open("cache", "stdout")
        await met(side)
        output.feed(b"".join(b"%d\n" % number for number in range(50)))
        output.feed(b"50\n51\n")
        other.feed(b"quiet\n")
        await trio.sleep(1)
        output.feed(b"52\n53\n")
        await trio.sleep(TOLD_SECONDS)
        output.feed(b"".join(b"%d\n" % number for number in range(54, 80)))
        output.close()
        side.link.finish_logs()
        await flushed(side)
    app = [log for log in lines(received) if log.process == "app"]
    assert [(int(log.line), log.dropped) for log in app if log.dropped] == [(52, 32)]
    assert [int(log.line) for log in app] == [*range(20), 52, 53, *range(54, 74)]
    assert [log.line for log in lines(received) if log.process == "cache"] == [b"quiet"]
    assert [fields["lines"] for fields in journal(received, "log.limited")] == [30, 8]
    assert journal(received, "log.dropped") == [{"process": "app", "stream": "stdout", "lines": 6}]


async def test_the_held_beginning_of_a_secret_is_counted_with_the_lines_that_go_over_the_limit(autojump_clock: MockClock) -> None:
    received: list[Message] = []
    secrets = {"KEY": Secret(delivery="env", value=SecretValue(b"first line\nsecond line"))}
    async with enclave_side() as side:
        side.wire.handler = side.collecting(received)
        output = opened(side, "rate = 1\nburst = 2", secrets).open("app", "stdout")
        await met(side)
        output.feed(b"a\nfirst line\nsec")
        output.feed(b"ret\nb\n")
        await trio.sleep(10)
        output.feed(b"c\n")
        await flushed(side)
    assert [(log.line, log.dropped) for log in lines(received)] == [(b"a", 0), (b"c", 3)]


async def test_a_new_run_of_a_process_has_no_new_burst(autojump_clock: MockClock) -> None:
    received: list[Message] = []
    async with enclave_side() as side:
        side.wire.handler = side.collecting(received)
        logs = opened(side, "rate = 1\nburst = 4")
        await met(side)
        for _ in range(3):
            output = logs.open("app", "stdout")
            output.feed(b"a\nb\n")
            output.close()
        await flushed(side)
    assert len(lines(received)) == 4


async def test_a_flood_without_a_parent_keeps_the_newest_lines_and_every_event(autojump_clock: MockClock) -> None:
    received: list[Message] = []
    async with enclave_side() as side:
        side.wire.handler = side.collecting(received)
        logs = opened(side, 'buffer_size = "1MiB"\nbyte_rate = "1GiB"\nbyte_burst = "4GiB"\nrate = 1000000\nburst = 10000000')
        output = logs.open("app", "stdout")
        side.link.send_state("starting")
        logs.open("app", "stderr").feed(b"just one line\n")
        for number in range(20_000):
            output.feed(b"%06d %s\n" % (number, b"x" * 500))
        side.link.exited("app", code=3)
        await met(side)
        await flushed(side)
    came = [int(log.line[:6]) for log in lines(received)]
    assert len(came) + dropped(received) == 20_000
    assert came[-1] == 19_999
    assert sum(len(log.line) for log in lines(received)) < 1 << 20
    place = 0
    for log in lines(received):
        place += log.dropped
        assert int(log.line[:6]) == place
        place += 1
    assert [log.line for log in lines(received, "stderr")] == [b"just one line"]
    assert [type(message).__name__ for message in received if not isinstance(message, Log)] == ["State", "Exit"]


async def test_lines_that_were_not_acknowledged_come_again_and_none_twice(autojump_clock: MockClock) -> None:
    seen: dict[int, Message] = {}
    again: list[int] = []

    def taking(acknowledged: int) -> Callable[[trio.SocketStream], Awaitable[None]]:
        async def handle(stream: trio.SocketStream) -> None:
            parent = SpokenParent(stream)
            await parent.welcome()
            for count in range(acknowledged + 20):
                message = await parent.receive()
                assert message is not None
                (sequence,) = sequences([message])
                if sequence in seen:
                    again.append(sequence)
                    assert seen[sequence] == message
                seen[sequence] = message
                if count < acknowledged:
                    await parent.send(Ack(sequence=sequence))
            side.wire.handler = collecting

        return handle

    async with enclave_side() as side:
        rest: list[Message] = []
        collecting = side.collecting(rest)
        side.wire.handler = taking(30)
        output = opened(side).open("app", "stdout")
        await met(side)
        for number in range(200):
            output.feed(b"%d\n" % number)
        await flushed(side)
    for message in rest:
        (sequence,) = sequences([message])
        if sequence in seen:
            again.append(sequence)
        seen[sequence] = message
    assert len(again) >= 20
    everything = [seen[sequence] for sequence in sorted(seen)]
    assert sorted(seen) == list(range(1, len(seen) + 1))
    assert [int(log.line) for log in lines(everything)] == list(range(200))


async def test_events_below_the_level_stay_inside_and_states_and_failures_do_not(autojump_clock: MockClock) -> None:
    received: list[Message] = []
    async with enclave_side() as side:
        side.wire.handler = side.collecting(received)
        side.link.gate.level = "error"
        side.link.journal("debug", "a")
        side.link.journal("warning", "b")
        side.link.journal("error", "boot.failed", reason="nsm_stalled")
        side.link.send_state("failed", "nsm_stalled")
        side.link.exited("app", code=1)
        await met(side)
        await flushed(side)
    assert [type(message).__name__ for message in received] == ["Journal", "State", "Exit"]
    assert sequences(received) == [1, 2, 3]
