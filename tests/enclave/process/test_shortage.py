"""What the machine is short of for a while is waited for: it costs no restart, no descriptor, and never PID 1."""

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from runtime.enclave.identity.secrets import grant
from runtime.enclave.process.customer import SpawnFailed
from runtime.enclave.shortage import PAUSE_MOST, pause_after, shortage_of, thread_is_wanted
from runtime.enclave.supervisor import CustomerFailed
from runtime.protocol.bundle import Secret, SecretValue
from tests.enclave.process.fakes import Fakes, config_with

APP = 'name = "app"\nrestart = "never"'


class Short:
    """The machine is short of something for so many starts."""

    def __init__(self, starts: float, shortage: str = "ENOMEM") -> None:
        self.left = starts
        self.shortage = shortage

    def __call__(self, _: object) -> None:
        if self.left > 0:
            self.left -= 1
            raise SpawnFailed("spawn_failed", "fork", shortage=self.shortage)


async def test_a_start_that_the_machine_is_too_short_for_is_tried_again(autojump_clock: MockClock) -> None:
    fakes = Fakes(config_with(APP), on_launch=Short(4, "EMFILE"))
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fakes.run)
        while (process := fakes.alive("app")) is None:
            await trio.sleep(0.01)
        assert trio.current_time() - began == pytest.approx(sum(map(pause_after, range(1, 5))), abs=0.05)
        process.end()
    assert fakes.outcome == 0
    delayed = [fields for event, fields in fakes.journal if event == "process.start_delayed"]
    assert delayed == 4 * [{"process": "app", "reason": "spawn_failed", "errno": "EMFILE"}]
    assert [fields["restarts"] for event, fields in fakes.journal if event == "process.exited"] == [0]


async def test_what_the_machine_is_short_of_for_too_long_fails_the_enclave(autojump_clock: MockClock) -> None:
    fakes = Fakes(config_with(APP, tables='[health]\nstart_timeout = "20s"'), on_launch=Short(float("inf")))
    began = trio.current_time()
    await fakes.run()
    assert isinstance(fakes.outcome, CustomerFailed)
    assert fakes.outcome.reason == "spawn_failed"
    assert 20 <= trio.current_time() - began <= 20 + PAUSE_MOST


async def test_a_stop_does_not_wait_for_what_the_machine_is_short_of(autojump_clock: MockClock) -> None:
    fakes = Fakes(config_with(APP), on_launch=Short(float("inf")))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fakes.run)
        await trio.sleep(10)
        asked = trio.current_time()
        await fakes.supervisor.stop()
    assert trio.current_time() == asked
    assert (fakes.outcome, fakes.launched) == (0, [])


async def test_any_other_failure_to_start_is_final(autojump_clock: MockClock) -> None:
    fakes = Fakes(config_with(APP), on_launch=Short(float("inf"), ""))
    began = trio.current_time()
    await fakes.run()
    assert isinstance(fakes.outcome, CustomerFailed)
    assert trio.current_time() == began


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.ENOSPC])
def test_a_shortage_has_its_name(number: int) -> None:
    assert shortage_of(OSError(number, "")) == errno.errorcode[number]


def test_what_will_not_pass_is_no_shortage() -> None:
    assert [shortage_of(OSError(number, "")) for number in (errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.E2BIG)] == 4 * [""]
    assert shortage_of(OSError("without a number")) == ""


def test_secrets_that_could_not_all_be_granted_leave_nothing_open() -> None:
    secrets = {name: Secret(delivery="file", value=SecretValue(b"12345678")) for name in ("A", "B", "C")}
    before = descriptors()
    own = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 3, own[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            grant(secrets, secrets, uid=os.getuid(), gid=os.getgid())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, own)
    assert descriptors() == before


def descriptors() -> list[str]:
    return sorted(entry.name for entry in Path("/proc/self/fd").iterdir())


def run(program: str) -> list[str]:
    # Not measured: what measures wants descriptors and threads at the end, of which there are none.
    unmeasured = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60, env=unmeasured
    )
    assert (finished.returncode, finished.stderr) == (0, "")
    return finished.stdout.splitlines()


_NO_THREAD = """
import os, resource
import trio
from runtime.enclave.identity.nsm import NitroDevice
from runtime.enclave.process.child import start_child
from runtime.enclave.process.fork_server import ForkServer
from runtime.enclave.process.reaper import Reaper

if os.getuid() == 0:
    os.setresuid(54321, 54321, 54321)
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))


async def main():
    for call in (NitroDevice().exchange(b""), start_child(["/bin/true"], {}, [], lambda: None)):
        try:
            await call
        except OSError as error:
            print(error)
    told = []
    with trio.move_on_after(0.5):
        await ForkServer(Reaper()).run(lambda event, fields, level: told.append(dict(fields)))
    print(told[0])

trio.run(main)
"""


def test_a_thread_that_cannot_be_had_is_an_error_of_the_system_and_no_bug() -> None:
    short = "[Errno 11] no thread can be started"
    assert run(_NO_THREAD) == [short, short, "{'reason': 'fork_server_unstarted', 'errno': 'EAGAIN'}"]


def test_any_other_error_of_a_thread_stays_what_it_is() -> None:
    with pytest.raises(RuntimeError, match="a bug"), thread_is_wanted():
        raise RuntimeError("a bug")


_BLIND = """
import os, resource, signal
import trio
from runtime.enclave.process.reaper import Reaper
from runtime.enclave.process.subreaper import become_subreaper


async def main():
    become_subreaper()
    if os.fork() == 0:
        if os.fork() == 0:
            signal.pause()
        os._exit(0)
    os.wait()
    own = resource.getrlimit(resource.RLIMIT_NOFILE)
    reaper = Reaper()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reaper.run)
        await trio.testing.wait_all_tasks_blocked()
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, own[1]))
        with trio.move_on_after(0.5) as blind:
            await reaper.end_others(60)
        print("said that all was over while it could not see", not blind.cancelled_caught)
        resource.setrlimit(resource.RLIMIT_NOFILE, own)
        await reaper.end_others(60)
        nursery.cancel_scope.cancel()
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        print("nobody is left")

import trio.testing
trio.run(main)
"""


def test_who_cannot_see_who_is_left_does_not_say_that_nobody_is() -> None:
    assert run(_BLIND) == ["said that all was over while it could not see False", "nobody is left"]
