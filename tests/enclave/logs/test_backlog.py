"""Lines that wait: bounded for each stream, the oldest dropped and exactly counted, in the order in which they came."""

import math
import os

from hypothesis import given
from hypothesis import strategies as st

from runtime.enclave.logs.backlog import BATCH_SECONDS, Backlog, Sealing
from runtime.protocol.link import Log, Sealed
from runtime.protocol.link_values import LINE_MAX, Stream
from runtime.protocol.sealed_logs import BATCH_SIZE, Batch, LogRecipient, log_key, open_batch
from runtime.protocol.sealing import Suite

KEY = log_key(Suite.X25519, os.urandom(32))
BOOT_ID = b"B" * 16
TOKEN = b"T" * 16


def sealed_backlog(size: int = 1 << 20) -> Backlog:
    recipient = LogRecipient(KEY.suite, KEY.public)
    return Backlog(size=size, sealing=Sealing(recipient=recipient, boot_id=BOOT_ID, token=TOKEN))


def taken(backlog: Backlog, now: float = 0.0) -> list[Log]:
    logs: list[Log] = []
    while (make := backlog.take(now)) is not None:
        message = make(1 + len(logs))
        assert isinstance(message, Log)
        logs.append(message)
    return logs


def batch(backlog: Backlog, now: float, sequence: int = 1) -> Batch | None:
    make = backlog.take(now)
    if make is None:
        return None
    message = make(sequence)
    assert isinstance(message, Sealed)
    opened = open_batch(KEY, message.sealed, boot_id=BOOT_ID, sequence=sequence)
    assert message.lines == len(opened.lines)
    return opened


def test_lines_leave_in_the_order_in_which_they_came_whatever_their_stream() -> None:
    backlog = Backlog()
    for number in range(10):
        stream: Stream = "stderr" if number % 3 else "stdout"
        backlog.add("app" if number % 2 else "cache", stream, b"%d" % number, now=0.0)
    logs = taken(backlog)
    assert [log.line for log in logs] == [b"%d" % number for number in range(10)]
    assert [log.sequence for log in logs] == list(range(1, 11))
    assert backlog.is_empty


def test_a_stream_that_is_full_drops_its_own_oldest_lines_alone() -> None:
    backlog = Backlog(size=64 * 1024)
    backlog.add("app", "stderr", b"quiet", now=0.0)
    for number in range(100):
        backlog.add("app", "stdout", b"%d " % number + bytes(1000), now=0.0)
    quiet, first, *rest = taken(backlog)
    assert (quiet.line, quiet.dropped) == (b"quiet", 0)
    assert first.dropped == 100 - 1 - len(rest)
    assert first.line.startswith(b"%d " % first.dropped)
    assert [log.dropped for log in rest] == [0] * len(rest)
    assert 10 < len(rest) < 64


def test_a_stream_keeps_its_newest_line_whatever_its_size() -> None:
    backlog = Backlog(size=64 * 1024, streams=100)
    for number in range(3):
        backlog.add("app", "stdout", bytes([number]) * 100_000, now=0.0)
    (log,) = taken(backlog)
    assert (log.line, log.dropped) == (b"\2" * LINE_MAX, 2)


@given(
    st.lists(
        st.tuples(st.sampled_from(["add", "lose", "take"]), st.sampled_from(["stdout", "stderr"]), st.integers(0, 9)), max_size=60
    )
)
def test_every_line_came_or_is_counted_before_the_next_one_of_its_stream(steps: list[tuple[str, Stream, int]]) -> None:
    backlog = Backlog(size=4096)
    written: dict[Stream, int] = {"stdout": 0, "stderr": 0}
    came: list[Log] = []
    for step, stream, count in steps:
        match step:
            case "add":
                backlog.add("app", stream, b"%d" % written[stream] + bytes(100 * count), now=0.0)
                written[stream] += 1
            case "lose":
                backlog.lose("app", stream, count)
                written[stream] += count
            case _ if (make := backlog.take(0.0)) is not None:
                message = make(1)
                assert isinstance(message, Log)
                came.append(message)
    came += taken(backlog)
    ends = {stream: lines for _, stream, lines in backlog.finish()}
    for name, total in written.items():
        place = 0
        for log in (log for log in came if log.stream == name):
            place += log.dropped
            assert log.line.rstrip(b"\0") == b"%d" % place
            place += 1
        assert place + ends.get(name, 0) == total


def test_plain_lines_are_due_at_once() -> None:
    backlog = Backlog()
    assert backlog.due == math.inf
    backlog.add("app", "stdout", b"x", now=5.0)
    assert backlog.due == -math.inf
    assert backlog.finish() == []
    assert len(taken(backlog)) == 1
    assert backlog.is_empty


def test_a_batch_is_sealed_when_it_is_full_or_its_oldest_line_has_waited_long_enough() -> None:
    backlog = sealed_backlog()
    backlog.add("app", "stdout", b"first", now=5.0)
    backlog.add("app", "stderr", b"second", now=5.1, is_partial=True)
    assert backlog.due == 5.0 + BATCH_SECONDS
    assert batch(backlog, 5.19) is None
    opened = batch(backlog, 5.2)
    assert opened is not None
    assert [(line.data, line.is_partial) for line in opened.lines] == [(b"first", False), (b"second", True)]
    assert (opened.number, opened.token, opened.is_last) == (1, TOKEN, False)
    assert (backlog.is_empty, backlog.due) == (True, math.inf)
    for _ in range(5):
        backlog.add("app", "stdout", bytes(BATCH_SIZE // 4), now=6.0)
    full = batch(backlog, 6.0)
    assert full is not None
    assert (full.number, len(full.lines)) == (2, 4)
    assert batch(backlog, 6.0) is None


def test_the_last_batch_says_so_even_when_it_is_empty() -> None:
    backlog = sealed_backlog()
    assert backlog.take(100.0) is None
    assert backlog.finish() == []
    last = batch(backlog, 0.0)
    assert last is not None
    assert (last.lines, last.is_last, last.number) == ((), True, 1)
    assert (backlog.is_empty, backlog.take(100.0)) == (True, None)


def test_what_was_dropped_stands_in_sealed_lines_too() -> None:
    backlog = sealed_backlog(size=16 * 1024)
    for _ in range(50):
        backlog.add("app", "stdout", bytes(1000), now=0.0)
    backlog.finish()
    opened = batch(backlog, 0.0)
    assert opened is not None
    assert opened.is_last
    assert opened.lines[0].dropped == 50 - len(opened.lines)
