"""A whole machine whose memory ends: requests are kept out before, the application is what the kernel ends, and it is said."""

import json
import os
import signal
from pathlib import Path

from runtime.protocol.link import Journal, State
from tests.scenarios.clients import SERVED, open_clients, serving, until, until_status
from tests.scenarios.machines import Machine, free_port, local_api, real_world, running_machine, write_script
from tests.scenarios.test_time import ODD, children, command_line, states

CAP_SYS_RESOURCE = 24
SCORES = """
import json, os, time

def lowered_to(score):
    try:
        os.write(os.open("/proc/self/oom_score_adj", os.O_WRONLY), str(score).encode())
    except OSError as error:
        return error.errno
    return 0

own = open("/proc/self/oom_score_adj").read()
child = os.popen("cat /proc/self/oom_score_adj").read()
print(json.dumps([int(own), int(child), lowered_to(-1000)]), flush=True)
time.sleep(3600)
"""


def meminfo(machine: Path, percent: int) -> None:
    """Says that so much of 1 GiB is used, whole at any moment."""
    proc = machine / "proc"
    proc.mkdir(parents=True, exist_ok=True)
    text = f"MemTotal: 1048576 kB\nMemAvailable: {1048576 * (100 - percent) // 100} kB\nBuffers: 0 kB\nCached: 0 kB\nShmem: 0 kB\n"
    (machine / "meminfo.new").write_text(text)
    (machine / "meminfo.new").replace(proc / "meminfo")


def vmstat(machine: Path, kills: int) -> None:
    (machine / "vmstat.new").write_text(f"oom_kill {kills}\n")
    (machine / "vmstat.new").replace(machine / "proc" / "vmstat")


async def test_requests_are_shed_before_memory_ends_and_evidence_is_still_given(tmp_path: Path) -> None:
    async with real_world(tmp_path) as world:
        image = world.image(tables=SERVED.format(port=free_port()) + local_api())
        world.register(image)
        folder = world.folder / "machine"
        meminfo(folder, 20)
        async with serving(world, image, program=ODD) as machine:
            clients = await open_clients(world, machine)
            await until_status(clients, 200)
            meminfo(folder, 88)
            await machine.until(lambda: machine.parent.journal("memory.warn") != [])
            assert (await clients.get("/")).status == 200
            meminfo(folder, 95)
            await machine.until(lambda: states(machine)[-1] == ("starting", "memory_shed"))
            refused = await until_status(clients, 503)
            assert refused.header("retry-after") == "5"
            assert (await clients.attest()).result.reference is not None
            meminfo(folder, 20)
            await machine.until(lambda: states(machine)[-1] == ("ready", ""))
            await until_status(clients, 200)
    told = [r.event for _, r in sorted(machine.parent.reports.items()) if isinstance(r, Journal) and r.event.startswith("memory.")]
    assert [event for event in told if event != "memory.unprotected"] == ["memory.warn", "memory.shed", "memory.good"]
    assert machine.parent.journal("memory.shed")[0].fields["used_percent"] == 95


async def test_a_worker_that_starts_while_requests_are_shed_lets_none_in(tmp_path: Path) -> None:
    async with real_world(tmp_path) as world:
        image = world.image(tables=SERVED.format(port=free_port()) + local_api())
        world.register(image)
        folder = world.folder / "machine"
        meminfo(folder, 20)
        async with serving(world, image, program=ODD) as machine:
            clients = await open_clients(world, machine)
            meminfo(folder, 95)
            await machine.until(lambda: states(machine)[-1] == ("starting", "memory_shed"))
            before = workers_of(machine)
            for pid in before:
                os.kill(pid, signal.SIGKILL)
            await until(lambda: len(workers_of(machine) - before) == len(before))
            assert (await clients.get("/")).status == 503


async def test_the_kernel_ends_an_application_and_never_the_supervisor(tmp_path: Path) -> None:
    may_go_down = bool(int(field_of(os.getpid(), "CapEff"), 16) >> CAP_SYS_RESOURCE & 1)
    own = score_of(os.getpid())
    async with real_world(tmp_path) as world:
        port = free_port()
        image = world.image(tables=SERVED.format(port=port) + PROCESS + local_api())
        world.register(image)
        write_script(world, "scores.py", SCORES)
        async with serving(world, image) as machine:
            await machine.until(lambda: machine.lines("scores") != [])
            first = int(machine.layout.pid.read_text())
            workers = workers_of(machine)
            assert len(workers) == 5, "the fork server, two for clients, one for the local API, one for egress"
            assert score_of(first) == (-1000 if may_go_down else own)
            assert {score_of(pid) for pid in workers} == {-500 if may_go_down else own}
            # Who may not go down has a lowest value of its own, which every process below inherits.
            scores, refusal = json.loads(machine.lines("scores")[0])[:2], json.loads(machine.lines("scores")[0])[2]
            assert scores == [500, 500]
            assert refusal != 0
    assert (machine.parent.journal("memory.unprotected") == []) == may_go_down


PROCESS = """
[[process]]
name = "scores"
command = ["python3", "scores.py"]
user = "1000:1000"
"""


async def test_an_end_by_the_kernel_for_want_of_memory_is_told_from_any_other(tmp_path: Path) -> None:
    async with real_world(tmp_path) as world:
        tables = """
[[process]]
name = "app"
command = ["python3", "-c", "import time; time.sleep(3600)", "a-victim"]
user = "1000:1000"
"""
        image = world.image(tables=tables + local_api())
        world.register(image)
        folder = world.folder / "machine"
        meminfo(folder, 20)
        vmstat(folder, 0)
        async with running_machine(world, image, program=ODD) as machine:
            os.kill(await victim(machine, 1), signal.SIGKILL)
            await machine.until(lambda: len(machine.exits()) == 1)
            pid = await victim(machine, 2)
            vmstat(folder, 1)
            os.kill(pid, signal.SIGKILL)
            await machine.until(lambda: len(machine.exits()) == 2)
            assert [each.signal for each in machine.exits()] == [9, 9]
            await machine.until(lambda: machine.parent.journal("process.killed") != [])
            await victim(machine, 3)
        (killed,) = machine.parent.journal("process.killed")
        assert (killed.level, killed.fields["process"], killed.fields["reason"]) == ("error", "app", "oom_killed")
        second = sorted(number for number, report in machine.parent.reports.items() if report in machine.exits())[1]
        assert abs(killed.sequence - second) <= 2, "beside the end that it explains"
        assert not [each for each in machine.parent.reports.values() if isinstance(each, State) and each.name == "failed"]


async def victim(machine: Machine, run: int) -> int:
    """The process of this run, from 1."""
    await machine.until(lambda: len(machine.parent.journal("process_started")) == run)
    (found,) = (pid for pid in children(int(machine.layout.pid.read_text())) if command_line(pid).endswith(b"a-victim\0"))
    return found


def workers_of(machine: Machine) -> set[int]:
    """The fork server and its workers, which are children of PID 1 all."""
    return {pid for pid in children(int(machine.layout.pid.read_text())) if b"runtime.enclave.worker" in command_line(pid)}


def field_of(pid: int, name: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.partition(":")[2].strip() for line in lines if line.startswith(name))


def score_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())
