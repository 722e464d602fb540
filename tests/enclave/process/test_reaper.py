"""The reaper as what it is in an enclave: the one process that inherits every orphan. Each test runs it in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]

PRELUDE = """
import json, os, signal, subprocess, sys
from functools import partial
import trio
from runtime.enclave.process.reaper import Reaper, become_subreaper

ORPHANS = 50

class Owned:
    "A child that this program waits for itself."
    def __init__(self, code):
        self.process = subprocess.Popen([sys.executable, "-I", "-S", "-c", code], stdin=subprocess.PIPE)
        self.pid = self.process.pid
    async def wait(self):
        descriptor = os.pidfd_open(self.pid)
        await trio.lowlevel.wait_readable(descriptor)
        os.close(descriptor)
        return self.process.wait()

async def start(code):
    await trio.lowlevel.checkpoint()
    return Owned(code)

def make_orphans(count):
    "Forked twice: their parent is gone at once, so they are ours. They end when the pipe is closed."
    wait, go = os.pipe()
    told, tell = os.pipe()
    if (middle := os.fork()) == 0:
        os.close(go)
        for number in range(count):
            if os.fork() == 0:
                os.write(tell, b"%d\\n" % os.getpid())
                os.read(wait, 1)
                os._exit(number % 4)
        os._exit(0)
    os.close(wait)
    os.close(tell)
    pids = []
    with os.fdopen(told) as lines:
        while len(pids) < count:
            pids.append(int(lines.readline()))
    return pids, go, middle

async def until_gone(pids):
    "Whoever is not reaped stays a zombie, and this never ends."
    while any(os.path.exists(f"/proc/{pid}") for pid in pids):
        await trio.sleep(0.005)

def children():
    return sorted(int(pid) for pid in open(f"/proc/self/task/{os.getpid()}/children").read().split())

async def main(test):
    become_subreaper()
    reaper = Reaper()
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reaper.run)
            await trio.sleep(0)
            print(json.dumps(await test(reaper)))
            nursery.cancel_scope.cancel()
"""


def run(test: str) -> dict[str, Any]:
    """What `async def test(reaper)` of a program of its own gives."""
    finished = subprocess.run(
        [sys.executable, "-c", f"{PRELUDE}\n{test}\ntrio.run(main, test)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (finished.returncode, finished.stderr) == (0, "")
    found: dict[str, Any] = json.loads(finished.stdout)
    return found


ENDS = {"exit 7": ("import sys; sys.stdin.read(); sys.exit(7)", 7), "a crash": ("import os, sys; sys.stdin.read(); os.abort()", -6)}


@pytest.mark.parametrize("end", ENDS)
def test_fifty_orphans_are_reaped_and_an_owned_childs_end_is_kept(end: str) -> None:
    code, status = ENDS[end]
    found = run(f"""
async def test(reaper):
    async with reaper.owning(partial(start, {code!r})) as child:
        pids, go, middle = make_orphans(ORPHANS)
        os.close(go)
        await until_gone([*pids, middle])
        left = children()
        child.process.stdin.close()
        status = await child.wait()
    return {{"orphans": len(set(pids)), "left": left == [child.pid], "status": status, "children": children()}}
""")
    assert found == {"orphans": 50, "left": True, "status": status, "children": []}


def test_an_owned_child_that_has_ended_and_was_not_waited_for_hides_no_orphan_for_ever() -> None:
    found = run("""
async def test(reaper):
    async with reaper.owning(partial(start, "raise SystemExit(9)")) as child:
        descriptor = os.pidfd_open(child.pid)
        await trio.lowlevel.wait_readable(descriptor)
        os.close(descriptor)
        pids, go, middle = make_orphans(ORPHANS)
        os.close(go)
        await trio.testing.wait_all_tasks_blocked(0.05)
        zombie = os.path.exists(f"/proc/{child.pid}")
        status = await child.wait()
    await until_gone([*pids, middle])
    return {"zombie": zombie, "status": status, "children": children()}
import trio.testing
""")
    assert found == {"zombie": True, "status": 9, "children": []}


def test_orphans_that_end_while_children_start_and_end_cost_no_status() -> None:
    found = run("""
async def test(reaper):
    statuses = {}
    async def own(number):
        async with reaper.owning(partial(start, f"raise SystemExit({number})")) as child:
            statuses[number] = await child.wait()
    pids = []
    async with trio.open_nursery() as nursery:
        for number in range(10, 30):
            nursery.start_soon(own, number)
            more, go, middle = make_orphans(5)
            os.close(go)
            pids += [*more, middle]
            await trio.sleep(0)
    await until_gone(pids)
    return {"right": all(number == status for number, status in statuses.items()), "count": len(statuses), "children": children()}
""")
    assert found == {"right": True, "count": 20, "children": []}


def test_a_child_that_could_not_be_started_blocks_nothing() -> None:
    found = run("""
async def fail():
    await trio.lowlevel.checkpoint()
    raise OSError("no such program")

async def test(reaper):
    try:
        async with reaper.owning(fail):
            pass
    except OSError as error:
        message = str(error)
    pids, go, middle = make_orphans(3)
    os.close(go)
    await until_gone([*pids, middle])
    return {"message": message, "children": children()}
""")
    assert found == {"message": "no such program", "children": []}


def test_an_orphan_of_an_orphan_comes_here_too() -> None:
    found = run("""
async def test(reaper):
    told, tell = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.write(tell, b"%d\\n%d\\n" % (os.getpid(), os.getppid()))
                os._exit(0)
            os._exit(0)
        os._exit(0)
    with os.fdopen(told) as lines:
        pids = [int(lines.readline()), int(lines.readline())]
    await until_gone([pid for pid in pids if pid != os.getpid()])
    while children():
        await trio.sleep(0.005)
    return {"children": children()}
""")
    assert found == {"children": []}
