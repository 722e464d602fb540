"""What the journal says of each end of a run, and of the last ones when a process takes the enclave down."""

import re
from hashlib import sha256

import trio
from trio.testing import MockClock

from runtime.enclave.process.customer import Ended
from runtime.enclave.process.exits import exited_fields, gave_up_fields
from runtime.enclave.supervisor import CustomerFailed
from runtime.protocol.link_values import BYTES_MAX, ENTRIES_MAX
from tests.enclave.process.fakes import Fakes, config_with
from tests.enclave.process.running import config_of, output

KILLED = Ended(code=None, signal=9, uptime=1.25, peak_kib=70_000, last_line=b"12345678", oom_kills=2)
QUIET = Ended(code=1, signal=None, uptime=0.0015, peak_kib=9)


def test_an_end_is_told_in_numbers_and_a_digest() -> None:
    assert exited_fields("app", KILLED, restarts=3) == {
        "process": "app", "signal": 9, "uptime_ms": 1250, "peak_kib": 70_000, "last_line": b"12345678", "oom_kills": 2, "restarts": 3,
    }  # fmt: skip
    assert exited_fields("app", QUIET, restarts=0) == {"process": "app", "code": 1, "uptime_ms": 1, "peak_kib": 9, "restarts": 0}


def test_the_last_three_are_told_the_last_one_first() -> None:
    fields = gave_up_fields("app", "restart_budget", [KILLED, QUIET, QUIET, KILLED])
    assert (fields["process"], fields["reason"]) == ("app", "restart_budget")
    assert (fields["signal_1"], fields["code_2"], fields["code_3"]) == (9, 1, 1)
    assert not any(name.endswith("_4") for name in fields)
    assert gave_up_fields("app", "command_missing", []) == {"process": "app", "reason": "command_missing"}


def test_what_is_told_fits_in_a_message_of_the_link() -> None:
    fields = gave_up_fields("a" * 64, "restart_budget", [KILLED] * 3)
    assert len(fields) + 1 <= ENTRIES_MAX, "with the time that the journal adds"
    assert all(re.fullmatch(r"[a-z][a-z0-9_.]{0,63}", name) for name in fields)
    assert all(len(value) <= BYTES_MAX for value in fields.values() if isinstance(value, bytes))


async def test_a_process_that_always_fails_uses_its_budget_up_and_its_last_ends_stand_in_the_journal(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    fakes = Fakes(config_with('name = "app"', tables="[limits]\nrestarts = 4"))
    nursery.start_soon(fakes.run)
    for code in range(1, 6):
        while fakes.alive("app") is None:
            await trio.sleep(0.05)
        process = fakes.alive("app")
        assert process is not None
        process.end(code)
        await trio.testing.wait_all_tasks_blocked()
    assert isinstance(fakes.outcome, CustomerFailed)
    assert (fakes.outcome.reason, fakes.outcome.status) == ("restart_budget", 5)
    exited = [fields for event, fields in fakes.journal if event == "process.exited"]
    assert [(fields["code"], fields["restarts"]) for fields in exited] == [(1, 0), (2, 1), (3, 2), (4, 3), (5, 4)]
    (gave_up,) = (fields for event, fields in fakes.journal if event == "process.gave_up")
    assert (gave_up["reason"], gave_up["code_1"], gave_up["code_2"], gave_up["code_3"]) == ("restart_budget", 5, 4, 3)


async def test_a_run_that_was_healthy_for_long_makes_the_pauses_short_again(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    fakes = Fakes(config_with('name = "app"', tables="[limits]\nrestarts = 100"))
    nursery.start_soon(fakes.run)

    async def pause_after(seconds: float) -> float:
        while (process := fakes.alive("app")) is None:
            await trio.sleep(0.001)
        await trio.sleep(seconds)
        process.end(1)
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        while fakes.alive("app") is None:
            await trio.sleep(0.001)
        return trio.current_time() - began

    pauses = [await pause_after(1) for _ in range(8)]
    assert 0.04 < pauses[0] < 0.11
    assert 6 < pauses[7] < 13
    assert 0.04 < await pause_after(31) < 0.11
    await fakes.supervisor.stop(trio.current_time())


async def test_the_digest_is_of_the_last_line_of_either_stream_and_never_the_line() -> None:
    _, ended = await output(config_of(["/bin/sh", "-c", "echo first; sleep 0.1; printf 'the last' >&2; exit 6"]))
    assert ended == Ended(code=6, signal=None)
    assert ended.last_line == sha256(b"the last").digest()[:8]
    assert 0 < ended.uptime < 30
    assert ended.peak_kib > 0
    _, silent = await output(config_of(["/bin/true"]))
    assert silent.last_line == b""
