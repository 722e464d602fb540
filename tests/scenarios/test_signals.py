"""A whole machine whose first process gets signals, and whose processes leave something behind."""

import os
import signal
from pathlib import Path

import trio

from runtime.enclave.process.forwarding import FORWARDED
from runtime.protocol.link import Log, Sequenced
from runtime.simulator.layout import Layout
from tests.scenarios.machines import PATIENCE, Machine, local_api, real_world, running_machine, write_script

LISTEN = """
import signal
heard = {signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH, signal.SIGTERM}
signal.pthread_sigmask(signal.SIG_BLOCK, heard)
print("ready", flush=True)
while (number := signal.sigwait(heard)) != signal.SIGTERM:
    print(signal.Signals(number).name, flush=True)
"""
TWO_PROCESSES = """
[[process]]
name = "app"
command = ["python3", "listen.py"]
user = "1000:1000"

[[process]]
name = "other"
command = ["python3", "listen.py"]
user = "1000:1000"
after = ["app"]
"""

LEAVE = """
import os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
asked = os.open("asked", os.O_WRONLY)
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    os.close(1)
    os.close(2)
    os.write(asked, b"daemon\\n")
    signal.sigwait({signal.SIGTERM})
    os.write(asked, b"asked\\n")
    while True:
        signal.pause()
os.close(asked)
os.wait()
print("ready", flush=True)
signal.sigwait({signal.SIGTERM})
"""
ONE_PROCESS = """
[[process]]
name = "app"
command = ["python3", "leave.py"]
user = "1000:1000"
stop_grace = "500ms"
"""


async def until_line(machine: Machine, process: str, line: str) -> None:
    def is_it(report: Sequenced) -> bool:
        return isinstance(report, Log) and (report.process, report.line) == (process, line.encode())

    with trio.fail_after(PATIENCE):
        await machine.parent.until(is_it)


async def test_signals_to_the_first_process_are_for_the_main_process_and_for_no_other(tmp_path: Path) -> None:
    async with real_world(tmp_path) as world:
        image = world.image(tables=TWO_PROCESSES + local_api())
        world.register(image)
        write_script(world, "listen.py", LISTEN)
        async with running_machine(world, image) as machine:
            for name in ("app", "other"):
                await until_line(machine, name, "ready")
            first = int(machine.layout.pid.read_text())
            for number in FORWARDED:
                os.kill(first, number)
                await until_line(machine, "app", number.name)
            os.kill(first, signal.SIGTERM)
            assert await machine.ended() == ("stopped", "", 0)
    assert machine.lines("app") == ["ready", *(number.name for number in FORWARDED)]
    assert machine.lines("other") == ["ready"]


async def test_a_daemon_that_got_away_from_its_group_is_asked_to_end_and_killed_when_it_does_not(tmp_path: Path) -> None:
    async with real_world(tmp_path) as world:
        image = world.image(tables=ONE_PROCESS + local_api())
        world.register(image)
        write_script(world, "leave.py", LEAVE)
        fifo = Layout(tmp_path / "machine").enclave / "asked"
        os.mkfifo(fifo)
        fifo.chmod(0o666)
        async with (
            trio.lowlevel.FdStream(os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)) as heard,
            running_machine(world, image) as machine,
        ):
            await until_line(machine, "app", "ready")
            with trio.fail_after(PATIENCE):
                assert await heard.receive_some(100) == b"daemon\n"
            os.kill(int(machine.layout.pid.read_text()), signal.SIGTERM)
            with trio.fail_after(PATIENCE):
                assert await heard.receive_some(100) == b"asked\n"
                assert await heard.receive_some(100) == b"", "the daemon is gone"
            assert await machine.ended() == ("stopped", "", 0)
