"""The reaper over a program of its own: what is nobody's is ended, what is owned is left alone, and a storm of orphans does not stop it."""

import subprocess
import sys

_PROGRAM = """
import os, sys, time
import trio
from runtime.enclave.process.reaper import Reaper
from runtime.enclave.process.subreaper import become_subreaper


class Child:
    def __init__(self, pid):
        self.pid = pid


def start(ignores_term):
    read, write = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        import signal
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM} if ignores_term else set())
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.write(write, b"%d\\n" % os.getpid())
        while True:
            signal.pause()
    return int(os.read(read, 20))


async def owned():
    pid = os.fork()
    if pid == 0:
        below = os.fork()
        time.sleep(1000)
    return Child(pid)


def is_there(pid):
    return os.path.exists(f"/proc/{pid}")


async def main():
    become_subreaper()
    reaper = Reaper()
    meek, stubborn = start(False), start(True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reaper.run)
        async with reaper.owning(owned) as child:
            while not (below := open(f"/proc/{child.pid}/task/{child.pid}/children").read().split()):
                await trio.sleep(0.01)
            before = trio.current_time()
            await reaper.end_others(0.3)
            print("grace kept", 0.3 <= trio.current_time() - before)
            print("others", is_there(meek), is_there(stubborn))
            print("owned", is_there(child.pid), is_there(int(below[0])))
            with trio.move_on_after(59) as waited:
                await reaper.end_others(60)
            print("nobody left: no grace", not waited.cancelled_caught)
            os.kill(int(below[0]), 9)
            os.kill(child.pid, 9)
            print("its status", os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1]))
        nursery.cancel_scope.cancel()

trio.run(main)
"""

_STORM = """
import os
import trio
from runtime.enclave.process.reaper import Reaper
from runtime.enclave.process.subreaper import become_subreaper


async def main():
    become_subreaper()
    reaper = Reaper()
    if os.fork() == 0:
        while True:
            if os.fork() == 0:
                if os.fork() == 0:
                    os._exit(7)
                os._exit(0)
            os.wait()
    storm, seen = trio.Event(), iter(range(20))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reaper.run, lambda: next(seen, None) is None and storm.set())
        await storm.wait()
        await reaper.end_others(5)
        nursery.cancel_scope.cancel()
    print("over")

trio.run(main)
"""


def run(program: str) -> list[str]:
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert (finished.returncode, finished.stderr) == (0, "")
    return finished.stdout.splitlines()


def test_what_is_nobodys_is_ended_and_what_is_owned_is_left_alone_with_all_below_it() -> None:
    assert run(_PROGRAM) == [
        "grace kept True",
        "others False False",
        "owned True True",
        "nobody left: no grace True",
        "its status -9",
    ]


def test_a_storm_of_orphans_without_end_holds_up_nothing_else() -> None:
    assert run(_STORM) == ["over"]
