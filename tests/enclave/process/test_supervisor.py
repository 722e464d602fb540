"""The supervisor over real processes: in which order they start and stop, when they run again, what it says of each."""

import os
import signal
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from runtime.enclave.platform import ImageConfig
from runtime.enclave.process.customer import Ended
from runtime.protocol.bundle import Secret, SecretValue
from tests.enclave.process.supervised import PATIENCE, config, outcome, process, supervising
from tests.scenarios.waiting import skip_waiting

ENDED_WELL = Ended(code=0, signal=None)
WAIT = """
import os, signal
def end(*_):
    os.write(1, b"bye\\n")
    os._exit(0)
signal.signal(signal.SIGTERM, end)
os.write(1, b"up\\n")
while True:
    signal.pause()
"""
WAIT_FOR_EVER = WAIT.replace("SIGTERM, end", "SIGTERM, signal.SIG_IGN")
FAIL_WHEN_ASKED = WAIT.replace("_exit(0)", "_exit(1)")


async def test_a_process_that_ends_well_ends_the_run_with_its_status() -> None:
    supervised = await outcome(config(process("app", "echo hello; echo oops >&2")))
    assert (supervised.status, supervised.failure) == (0, None)
    assert supervised.lines("app") == [b"hello"]
    assert supervised.lines("app", "stderr") == [b"oops"]
    assert supervised.exits("app") == [ENDED_WELL]


async def test_a_process_that_must_not_run_again_and_fails_ends_everything_with_its_status() -> None:
    supervised = await outcome(config(process("app", "exit 3") + process("other", WAIT)))
    assert supervised.failure is not None
    assert (supervised.failure.reason, supervised.failure.status) == ("process_failed", 3)
    assert supervised.exits("app") == [Ended(code=3, signal=None)]


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGTERM])
async def test_a_crash_is_told_by_its_signal(number: signal.Signals) -> None:
    supervised = await outcome(config(process("app", f"kill -{int(number)} $$")))
    assert supervised.exits("app") == [Ended(code=None, signal=int(number))]
    assert supervised.failure is not None
    assert supervised.failure.status == 128 + number


@pytest.mark.parametrize(
    ("policy", "script", "runs", "reason"),
    [
        ("never", "exit 0", 1, None),
        ("never", "exit 1", 1, "process_failed"),
        ("on-failure", "exit 0", 1, None),
        ("on-failure", "exit 1", 3, "restart_budget"),
        ("on-failure", "kill -9 $$", 3, "restart_budget"),
        ("always", "exit 0", 3, "restart_budget"),
        ("always", "exit 1", 3, "restart_budget"),
    ],
)
async def test_a_process_runs_again_as_its_policy_says_and_within_its_budget(
    policy: str, script: str, runs: int, reason: str | None
) -> None:
    settings = config(process("app", script, restart=f'"{policy}"'), "[limits]\nrestarts = 2")
    supervised = await outcome(settings)
    assert len(supervised.exits("app")) == len(supervised.kinds("process_started")) == runs
    assert (supervised.failure and supervised.failure.reason) == reason
    if reason is not None:
        assert supervised.failure is not None
        assert supervised.failure.status != 0, "an enclave that cannot go on never says that all is well"


async def test_a_process_that_comes_to_itself_goes_on(tmp_path: Path) -> None:
    counter = tmp_path / "runs"
    script = f"echo x >> {counter}; test $(wc -l < {counter}) -ge 3"
    supervised = await outcome(config(process("app", script, restart='"on-failure"')))
    assert (supervised.status, len(supervised.exits("app"))) == (0, 3)


async def test_failures_that_are_long_ago_do_not_count(mock_clock: MockClock, nursery: trio.Nursery) -> None:
    """The pauses between three failures are longer than the window, and virtual."""
    nursery.start_soon(skip_waiting, mock_clock)
    settings = config(process("app", "exit 1", restart='"on-failure"'), '[limits]\nrestarts = 2\nrestart_window = "100ms"')
    async with supervising(settings) as supervised:
        await supervised.until(lambda _: len(supervised.exits("app")) == 8)
        assert supervised.failure is None


async def test_processes_start_in_the_order_of_after_and_each_when_the_ones_before_it_are_ready() -> None:
    settings = config(
        process("third", WAIT, after='["second", "first"]')
        + process("second", WAIT, after='["first"]', ready='{ tcp = "127.0.0.1:1" }')
        + process("first", WAIT, ready='{ tcp = "127.0.0.1:1" }')
    )
    async with supervising(settings) as supervised:
        with trio.fail_after(PATIENCE):
            for name in ("first", "second"):
                await supervised.until_line(name, b"up")
                await wait_all_tasks_blocked()
                assert supervised.kinds("process_started")[-1] == ("process_started", name)
                assert not supervised.supervisor.is_ready
                supervised.supervisor.probed(name, True)
            await supervised.until_line("third", b"up")
        assert supervised.supervisor.is_ready
        assert [process for _, process in supervised.kinds("process_started")] == ["first", "second", "third"]
        assert [process for _, process in supervised.kinds("process_ready")] == ["first", "second", "third"]


async def test_processes_stop_in_reverse_order_each_after_the_one_before_has_ended() -> None:
    settings = config(
        process("first", WAIT) + process("second", WAIT, after='["first"]') + process("third", WAIT, after='["second"]')
    )
    async with supervising(settings) as supervised:
        with trio.fail_after(PATIENCE):
            for name in ("first", "second", "third"):
                await supervised.until_line(name, b"up")
            await supervised.supervisor.stop()
            await supervised.ended.wait()
    stopped = [told for told in supervised.kinds("process_stopping", "exit") if told[0]]
    assert [name for what, name in stopped if what == "process_stopping"][:3] == ["third", "second", "first"]
    assert [name for what, name in stopped if what == "exit"] == ["third", "second", "first"]
    assert stopped[:2] == [("process_stopping", "third"), ("exit", "third")]
    for name in ("first", "second", "third"):
        assert supervised.exits(name) == [ENDED_WELL]
        assert supervised.lines(name) == [b"up", b"bye"], "it heard of its end, and what it said of it was heard"
    assert supervised.status == 0


async def test_a_process_that_does_not_hear_term_is_killed_after_its_grace(mock_clock: MockClock, nursery: trio.Nursery) -> None:
    nursery.start_soon(skip_waiting, mock_clock)
    settings = config(process("deaf", WAIT_FOR_EVER, stop_grace='"30s"'))
    async with supervising(settings) as supervised:
        await supervised.until_line("deaf", b"up")
        began = trio.current_time()
        await supervised.supervisor.stop()
        await supervised.ended.wait()
        assert 30 <= trio.current_time() - began < 40
    assert supervised.exits("deaf") == [Ended(code=None, signal=signal.SIGKILL)]


async def test_a_stop_never_takes_longer_than_its_deadline(mock_clock: MockClock, nursery: trio.Nursery) -> None:
    nursery.start_soon(skip_waiting, mock_clock)
    settings = config(process("a", WAIT_FOR_EVER, stop_grace='"1h"') + process("b", WAIT_FOR_EVER, stop_grace='"1h"'))
    async with supervising(settings) as supervised:
        for name in ("a", "b"):
            await supervised.until_line(name, b"up")
        began = trio.current_time()
        await supervised.supervisor.stop(began + 5)
        await supervised.ended.wait()
        assert trio.current_time() - began < 10
    assert supervised.exits("a") == supervised.exits("b") == [Ended(code=None, signal=signal.SIGKILL)]


async def test_what_is_asked_to_stop_is_not_started_again() -> None:
    settings = config(process("app", FAIL_WHEN_ASKED, restart='"always"'))
    async with supervising(settings) as supervised:
        with trio.fail_after(PATIENCE):
            await supervised.until_line("app", b"up")
            await supervised.supervisor.stop()
            await supervised.ended.wait()
    assert supervised.exits("app") == [Ended(code=1, signal=None)]
    assert supervised.failure is None


MISSING = [
    ('command = ["/no/such/program"]', "command_missing", "/no/such/program"),
    ('command = ["no-such-program"]', "command_missing", "no-such-program"),
    ('command = ["/etc/passwd"]', "command_not_executable", "/etc/passwd"),
    ('command = ["/dev/null/program"]', "spawn_failed", "/dev/null/program"),
    ('command = ["/bin/true"]\nworkdir = "/no/such/folder"', "spawn_failed", "/no/such/folder"),
    ('command = ["/bin/true"]\nsecrets = ["TOKEN"]', "secret_missing", "TOKEN"),
    ("", "command_missing", "app"),
]


@pytest.mark.parametrize(("keys", "reason", "named"), MISSING, ids=[f"{reason} {named}" for _, reason, named in MISSING])
async def test_a_process_that_cannot_be_started_ends_everything_with_a_reason_that_names_it(
    keys: str, reason: str, named: str
) -> None:
    supervised = await outcome(config(process("first", WAIT) + f'[[process]]\nname = "app"\nafter = ["first"]\n{keys}\n'))
    assert supervised.failure is not None
    assert supervised.failure.reason == reason
    assert named in str(supervised.failure)
    assert supervised.exits("first") != [], "and takes down what runs already"
    assert supervised.exits("app") == []


async def test_without_a_command_of_its_own_a_process_runs_the_images() -> None:
    image = ImageConfig(
        command=("/bin/sh", "-c", "echo from the image; pwd; echo $GREETING"), environment={"GREETING": "hello"}, directory="/usr"
    )
    supervised = await outcome(config('[[process]]\nname = "app"\nrestart = "never"\n'), image=image)
    assert supervised.lines("app") == [b"from the image", b"/usr", b"hello"]


async def test_a_process_that_never_becomes_ready_ends_everything(mock_clock: MockClock, nursery: trio.Nursery) -> None:
    nursery.start_soon(skip_waiting, mock_clock)
    settings = config(process("app", WAIT_FOR_EVER, ready='{ tcp = "127.0.0.1:1" }'), '[health]\nstart_timeout = "40s"')
    async with supervising(settings) as supervised:
        await supervised.ended.wait()
        assert trio.current_time() >= 40
    assert supervised.failure is not None
    assert supervised.failure.reason == "ready_timeout"
    assert [ended.code for ended in supervised.exits("app")] == [None], "it was ended by a signal"


async def test_a_command_that_says_yes_makes_a_process_ready_and_runs_as_it_does() -> None:
    ready = "{ exec = ['/bin/sh', '-c', 'test \"$NAME\" = app && test -z \"$TOKEN\"'], interval = '100ms' }"
    settings = config(process("app", WAIT, ready=ready, env="{ NAME = 'app' }", secrets='["TOKEN"]'))
    secrets = {"TOKEN": Secret(delivery="env", value=SecretValue(b"a secret that no probe needs"))}
    async with supervising(settings, secrets=secrets) as supervised:
        with trio.fail_after(PATIENCE):
            await supervised.until(lambda told: told[0] == "process_ready")
        assert supervised.supervisor.is_ready


async def test_a_process_that_stops_being_ready_is_told_and_comes_back() -> None:
    settings = config(process("app", WAIT, ready='{ http = "http://127.0.0.1:1/" }'))
    async with supervising(settings) as supervised:
        with trio.fail_after(PATIENCE):
            await supervised.until_line("app", b"up")
        assert supervised.supervisor.watched == ("app",)
        for answer in (True, True, False, False, True):
            supervised.supervisor.probed("app", answer)
            assert supervised.supervisor.is_ready is answer
        supervised.supervisor.probed("nobody", False)
        assert [detail for what, _, detail in supervised.told if what == "ready"] == [True, False, True]
        assert supervised.kinds("watch") == [("watch", "app")]
    assert [detail for what, _, detail in supervised.told if what == "watch"] == [True, False]
    supervised.supervisor.probed("app", True)
    assert not supervised.supervisor.is_ready, "an answer that comes after the end means nothing"


async def test_a_long_line_comes_in_pieces_and_a_last_one_without_its_end() -> None:
    settings = config(process("app", "printf '%0700d' 7; echo; printf tail"), '[log]\nmax_line_size = "256B"')
    supervised = await outcome(settings)
    lines = supervised.lines("app")
    assert [len(line) for line in lines] == [256, 256, 188, 4]
    assert b"".join(lines) == b"0" * 699 + b"7tail"


LEAVE_BEHIND = """
import os, signal
ready, told = os.pipe()
child = os.fork()
if child == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if ESCAPES:
        os.setsid()
    os.write(told, b"x")
    while True:
        signal.pause()
os.read(ready, 1)
print(child, flush=True)
"""


@pytest.mark.parametrize("escapes", [False, True], ids=["in its group", "in a session of its own"])
async def test_something_left_behind_that_holds_a_pipe_does_not_hold_the_run(
    mock_clock: MockClock, nursery: trio.Nursery, escapes: bool
) -> None:
    nursery.start_soon(skip_waiting, mock_clock)
    settings = config(process("app", f"ESCAPES = {escapes}\n{LEAVE_BEHIND}", stop_grace='"0s"'))
    async with supervising(settings) as supervised:
        await supervised.ended.wait()
        left = int(supervised.lines("app")[0])
        if escapes:
            os.kill(left, signal.SIGKILL)
        await until_dead(left)
    assert supervised.status == 0


async def until_dead(pid: int) -> None:
    """Returns when a process that is no child of ours has ended; at once when it is gone altogether."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)


async def test_the_status_is_that_of_the_first_process_in_the_file() -> None:
    settings = config(process("main", "exit 0", after='["helper"]') + process("helper", WAIT))
    async with supervising(settings) as supervised:
        with trio.fail_after(PATIENCE):
            await supervised.until(lambda told: told[:2] == ("exit", "main"))
            await supervised.supervisor.stop()
            await supervised.ended.wait()
    assert supervised.status == 0
