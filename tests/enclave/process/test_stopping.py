"""How processes are stopped: in turn, told before they are killed, and never longer than they have."""

import math
import os
import signal
import subprocess
import sys

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from runtime.enclave.process.child import Child, start_child
from runtime.enclave.process.customer import Ended
from runtime.protocol.link_values import Stream
from tests.enclave.process.fakes import FakeProcess, Fakes, config_with
from tests.enclave.process.running import PATIENCE, config_of, start
from tests.support.outputs import lines_to

TERM, KILL = int(signal.SIGTERM), int(signal.SIGKILL)


async def begin(nursery: trio.Nursery, *processes: str) -> Fakes:
    fakes = Fakes(config_with(*processes))
    nursery.start_soon(fakes.run)
    await wait_all_tasks_blocked()
    return fakes


def outcomes(fakes: Fakes) -> list[object]:
    return [fields["outcome"] for event, fields in fakes.journal if event == "process.pre_stop"]


def the(fakes: Fakes, name: str) -> FakeProcess:
    (process,) = (process for process in fakes.launched if process.name == name and process.command != ("leave",))
    return process


async def test_what_does_not_wait_for_one_another_stops_together(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """Two graces, not four: the deaf ones of each step share theirs."""
    fakes = await begin(
        nursery, *(f'name = "{name}"\nstop_grace = "10s"\nafter = {after}' for name, after in
                   {"db": "[]", "cache": "[]", "web": '["db", "cache"]', "api": '["db"]'}.items())
    )  # fmt: skip
    began = trio.current_time()
    await fakes.supervisor.stop()
    assert trio.current_time() - began == pytest.approx(20)
    stopping = [name for _, name in fakes.events("process_stopping")]
    assert (set(stopping[:2]), set(stopping[2:])) == ({"web", "api"}, {"db", "cache"})


async def test_a_drain_of_processes_that_end_when_told_takes_no_time(mock_clock: MockClock, nursery: trio.Nursery) -> None:
    """The clock stands still: whatever waited for it would never end."""
    fakes = await begin(nursery, 'name = "db"', 'name = "web"\nafter = ["db"]')
    for process in fakes.launched:
        process.on_signal = lambda process, number: process.end(0) if number == TERM else None
    await fakes.supervisor.stop()
    assert [process.heard for process in fakes.launched] == [[TERM], [TERM]]
    assert [name for name, _ in fakes.exits] == ["web", "db"]


async def test_the_command_before_the_stop_runs_first_and_as_the_process_does(nursery: trio.Nursery) -> None:
    fakes = await begin(nursery, 'name = "app"\ncommand = ["run"]\npre_stop = ["leave"]')
    nursery.start_soon(fakes.supervisor.stop)
    await wait_all_tasks_blocked()
    command = fakes.launched[-1]
    assert (command.name, command.command) == ("app", ("leave",))
    assert the(fakes, "app").heard == [], "and nothing is said while it runs"
    command.end(0)
    await wait_all_tasks_blocked()
    assert the(fakes, "app").heard == [TERM]
    assert outcomes(fakes) == ["done"]


@pytest.mark.parametrize(("grace", "left"), [("30s", 2.0), ("5s", 1.0)])
async def test_a_command_before_the_stop_that_hangs_leaves_time_to_the_process(
    autojump_clock: MockClock, nursery: trio.Nursery, grace: str, left: float
) -> None:
    fakes = await begin(nursery, f'name = "app"\ncommand = ["run"]\npre_stop = ["leave"]\nstop_grace = "{grace}"')
    heard: list[tuple[int, float]] = []
    the(fakes, "app").on_signal = lambda _process, number: heard.append((number, trio.current_time()))
    await fakes.supervisor.stop()
    (term, told_at), (kill, killed_at) = heard
    assert (term, kill) == (TERM, KILL)
    assert killed_at - told_at == pytest.approx(left)
    assert fakes.launched[-1].heard == [KILL], "the command is gone as well"
    assert outcomes(fakes) == ["cut"]


async def test_a_deadline_cuts_the_command_and_the_grace_even_when_it_comes_later(
    mock_clock: MockClock, nursery: trio.Nursery
) -> None:
    fakes = await begin(nursery, 'name = "app"\ncommand = ["run"]\npre_stop = ["leave"]\nstop_grace = "1h"')
    nursery.start_soon(fakes.supervisor.stop)
    await wait_all_tasks_blocked()
    mock_clock.jump(100)
    nursery.start_soon(fakes.supervisor.stop, trio.current_time() + 10)
    await wait_all_tasks_blocked()
    assert the(fakes, "app").heard == []
    mock_clock.jump(8)
    await wait_all_tasks_blocked()
    assert the(fakes, "app").heard == [TERM]
    mock_clock.jump(2)
    await wait_all_tasks_blocked()
    assert the(fakes, "app").heard == [TERM, KILL]
    assert fakes.outcome is not None


async def test_without_any_time_a_process_is_told_all_the_same(nursery: trio.Nursery) -> None:
    fakes = await begin(nursery, 'name = "app"\ncommand = ["run"]\npre_stop = ["leave"]', 'name = "deaf"\ncommand = ["run"]')
    await fakes.supervisor.stop(trio.current_time())
    assert the(fakes, "app").heard == the(fakes, "deaf").heard == [TERM, KILL]


@pytest.mark.parametrize("how", ["fails", "is missing"])
async def test_a_command_that_does_not_work_holds_up_nothing(nursery: trio.Nursery, how: str) -> None:
    fakes = await begin(nursery, 'name = "app"\ncommand = ["run"]\npre_stop = ["leave"]')
    if how == "is missing":
        fakes.refused.add("app")
    nursery.start_soon(fakes.supervisor.stop)
    await wait_all_tasks_blocked()
    if how == "fails":
        fakes.launched[-1].end(1)
        await wait_all_tasks_blocked()
    assert the(fakes, "app").heard == [TERM]
    assert outcomes(fakes) == ["failed"]


async def test_a_command_for_a_process_that_has_ended_meanwhile_is_cut(nursery: trio.Nursery) -> None:
    fakes = await begin(nursery, 'name = "app"\ncommand = ["run"]\npre_stop = ["leave"]')
    nursery.start_soon(fakes.supervisor.stop)
    await wait_all_tasks_blocked()
    the(fakes, "app").end(0)
    await wait_all_tasks_blocked()
    assert (outcomes(fakes), fakes.outcome) == (["cut"], 0)


async def test_a_process_that_waits_to_be_started_again_is_not_told_and_not_started(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    fakes = await begin(nursery, 'name = "app"\ncommand = ["run"]\npre_stop = ["leave"]')
    the(fakes, "app").end(1)
    await wait_all_tasks_blocked()
    await fakes.supervisor.stop()
    await trio.sleep(60)
    assert len(fakes.launched) == 1
    assert fakes.events("process_stopping", "process.pre_stop") == []


# Real ones.


async def child_of(script: str) -> Child:
    return await start_child(["/bin/sh", "-c", script], {"PATH": os.defpath}, [], os.setsid)


async def test_a_signal_goes_to_the_whole_group_even_when_its_leader_is_gone() -> None:
    with trio.fail_after(PATIENCE):
        child = await child_of("sleep 1000 >/dev/null 2>&1 & exit 0")
        reaped = await child.wait()
        assert reaped.code == 0
        child.signal(0)
        with trio.move_on_after(0.05) as patience:
            await child.wait_for_group()
        assert patience.cancelled_caught, "the one that was left behind is still there"
        child.signal(KILL)
        await child.wait_for_group()
        child.signal(KILL)
        await child.aclose()
        await child.aclose()


async def test_many_may_wait_for_one_child_and_a_wait_can_be_given_up() -> None:
    with trio.fail_after(PATIENCE):
        child = await child_of("read line; exit 7")  # standard input is empty: it ends at once, after a moment
        with trio.move_on_after(0):
            await child.wait()
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(child.wait)
        assert (await child.wait()).code == 7
        await child.aclose()


async def left_behind(trap: str, *, grace: float) -> tuple[list[bytes], Ended]:
    """A process whose main program is killed alone as soon as another of its group is "up"; that one's `trap` is for TERM."""
    lines: list[bytes] = []

    def on_line(_process: str, stream: Stream, line: bytes) -> None:
        if stream == "stdout":  # the shell itself complains of its end
            lines.append(line)
        if line == b"up":
            os.kill(customer.pid, signal.SIGKILL)

    script = f"(trap '{trap}' TERM; echo up; while :; do sleep 0.02; done) & wait"
    with trio.fail_after(PATIENCE):
        customer = await start(config_of(["/bin/sh", "-c", script.replace("'", '"')]))
        ended = await customer.follow(lines_to(on_line), grace=grace)
        await customer.aclose()
    return lines, ended


async def test_what_is_left_behind_in_the_group_hears_term_and_gets_its_grace() -> None:
    lines, ended = await left_behind("sleep 0.1; echo in order; exit 0", grace=math.inf)
    assert lines == [b"up", b"in order"]
    assert ended == Ended(code=None, signal=KILL)


async def test_what_is_left_behind_and_hears_nothing_is_killed_when_the_grace_is_over() -> None:
    lines, ended = await left_behind("", grace=0.1)
    assert lines == [b"up"]
    assert ended == Ended(code=None, signal=KILL)


async def test_a_run_that_is_given_up_leaves_nothing() -> None:
    customer = await start(config_of(["/bin/sleep", "1000"]))
    with trio.move_on_after(0.05):
        await customer.follow(lines_to(lambda *_: None), grace=math.inf)
    await customer.aclose()
    with pytest.raises(ProcessLookupError):
        os.kill(customer.pid, 0)


PEAK = """
import sys, trio
from runtime.enclave.process.child import start_child

async def main():
    for size in (0, 300):
        child = await start_child([sys.executable, "-c", f"x = bytearray({size} << 20)"], {}, [], lambda: None)
        print((await child.wait()).peak_kib)
        await child.aclose()

trio.run(main)
"""


def test_the_most_memory_that_a_process_had_is_known_when_it_has_ended() -> None:
    run = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    small, large = map(int, run.stdout.split())
    assert 0 < small < 200 * 1024, "its own, or what its parent had when it forked"
    assert 300 * 1024 < large < 500 * 1024
