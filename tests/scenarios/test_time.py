"""A whole machine's time and entropy: a clock that is off by a year, a module that gives no seed or loses the time while it runs."""

import os
import signal
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
import trio

from runtime.enclave.identity.nsm import Nsm
from runtime.enclave.identity.timekeeping import SAMPLES
from runtime.protocol.link import Journal, State
from runtime.protocol.measurements import KEY_PCR
from runtime.protocol.nsm import Attest, GetRandom, NsmErrorCode, Request, decode_request
from runtime.simulator.nsm import Faults, SimulatedNsm
from tests.scenarios.boots import MemoryDevice
from tests.scenarios.clients import SERVED, open_clients, serving, until, until_status
from tests.scenarios.faulty_machine import JUMP, Broken
from tests.scenarios.machines import PATIENCE, Machine, free_port, local_api, real_world, running_machine
from tests.scenarios.world import World

YEAR = 365 * 86400.0
ODD = "tests.scenarios.odd_machine"
JUMPING = "tests.scenarios.faulty_machine"


def sequence_of(machine: Machine, event: str) -> int:
    """The place of an event in the one count of a boot; of the first, if there are more."""
    return min(report.sequence for report in machine.parent.journal(event))


def journal(machine: Machine) -> list[str]:
    return [report.event for _, report in sorted(machine.parent.reports.items()) if isinstance(report, Journal)]


def states(machine: Machine) -> list[tuple[str, str]]:
    return [(report.name, report.reason) for _, report in sorted(machine.parent.reports.items()) if isinstance(report, State)]


def count_readings(module: SimulatedNsm) -> list[Request]:
    """From now on, the requests for a document that is for its time alone."""
    asked: list[Request] = []
    handle = module.handle

    def counting(request: bytes) -> bytes:
        decoded = decode_request(request)
        if isinstance(decoded, Attest) and decoded.user_data is None:
            asked.append(decoded)
        return handle(request)

    module.handle = counting  # type: ignore[method-assign]  # the module is the test's own, and answers as always
    return asked


async def jump_until(machine: Machine, condition: Callable[[], bool]) -> None:
    """Puts the time of the first process forward by a minute, and again while nothing comes of it."""
    with trio.fail_after(PATIENCE):
        while not condition():
            os.kill(int(machine.layout.pid.read_text()), JUMP)
            with trio.move_on_after(1):
                await until(condition)


def host_clock() -> float:
    """By how much this host's clock is ahead of the counter that nobody can set."""
    return time.clock_gettime(time.CLOCK_REALTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


@pytest.mark.parametrize("offset", [-YEAR, YEAR], ids=["a year slow", "a year fast"])
async def test_a_clock_that_is_off_by_a_year_is_stepped_once_before_any_customer_process(tmp_path: Path, offset: float) -> None:
    before = host_clock()
    async with real_world(tmp_path) as world:
        image = world.image(tables=SERVED.format(port=free_port()) + local_api())
        world.register(image)
        (world.folder / "machine").mkdir()
        Broken(clock_offset=offset).write(world.folder / "machine")
        module = world.module(image)
        read = count_readings(module)
        async with serving(world, image, module=module, program=JUMPING) as machine:
            so_far = len(read)
            await jump_until(machine, lambda: len(read) >= so_far + 2 * SAMPLES)
    (stepped,) = machine.parent.journal("clock.stepped")
    seconds = stepped.fields["seconds_us"]
    assert isinstance(seconds, int)
    assert seconds == pytest.approx(-offset * 1e6, abs=1e6)
    order = ["entropy.seeded", "clock.left_alone", "clock.stepped", "provisioning.challenged", "live", "process_started"]
    assert [event for event in journal(machine) if event in order] == order
    assert abs(host_clock() - before) < 1, "the host's clock is not the simulation's to set"


async def test_a_clock_that_is_lost_makes_the_enclave_not_ready_and_evidence_is_still_given(tmp_path: Path) -> None:
    async with real_world(tmp_path) as world:
        limits = '[limits]\nclock_offset = "500ms"\n'
        image = world.image(tables=SERVED.format(port=free_port()) + local_api() + limits)
        world.register(image)
        module = world.module(image)
        async with serving(world, image, module=module, program=JUMPING) as machine:
            clients = await open_clients(world, machine)
            assert (await clients.get("/")).status == 200
            module.faults = Faults(clock_skew=timedelta(seconds=2))
            await jump_until(machine, lambda: states(machine)[-1] == ("starting", "clock_offset"))
            refused = await until_status(clients, 503)
            assert b"not_ready" in refused.body
            assert refused.header("retry-after") == "5"
            assert (await clients.attest()).result.reference is not None
            module.faults = Faults()
            await jump_until(machine, lambda: len(machine.parent.journal("clock.good")) == 2)
            await until(lambda: states(machine)[-1] == ("ready", ""))
            await until_status(clients, 200)
        (stale,) = machine.parent.journal("clock.stale")
        assert (stale.level, stale.fields["reason"]) == ("error", "clock_offset")
        told = [event for event in journal(machine) if event.startswith("clock.")]
        assert told == ["clock.left_alone", "clock.good", "clock.stale", "clock.good"]


async def test_without_a_seed_no_worker_runs_and_no_key_is_made(tmp_path: Path) -> None:
    async with real_world(tmp_path) as world:
        image = world.image()
        world.register(image)
        module = world.module(image)
        faults = Faults(refused={GetRandom: NsmErrorCode.INTERNAL_ERROR})
        async with running_machine(world, image, module=module, faults=faults) as machine:
            assert await machine.ended() == ("failed", "entropy_missing", 1)
        assert machine.parent.connections("egress") == 0
        module.faults = Faults()
        key = await Nsm(MemoryDevice(module)).describe_pcr(KEY_PCR)
        assert (key.locked, key.value) == (False, bytes(48))
        assert not {"entropy.seeded", "provisioning.challenged"} & set(journal(machine))


async def test_a_fork_server_that_is_started_again_makes_no_key_before_the_seed(tmp_path: Path) -> None:
    async with real_world(tmp_path) as world:
        image = world.image()
        world.register(image)
        module = world.module(image)
        stall = trio.Event()
        async with running_machine(world, image, module=module, faults=Faults(stall=stall)) as machine:
            killed = await fork_server_of(machine)
            os.kill(killed, signal.SIGKILL)
            again = await fork_server_of(machine, other_than=killed)
            assert workers_of(again, world) == []
            key = await Nsm(MemoryDevice(module)).describe_pcr(KEY_PCR)
            assert key.value == bytes(48)
            stall.set()
            module.faults = Faults()
            assert await machine.ended() == ("stopped", "", 0)
        assert sequence_of(machine, "entropy.seeded") < sequence_of(machine, "provisioning.challenged")


def children(pid: int) -> list[int]:
    """The processes whose parent is `pid`, on this machine."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
            found += [int(entry.name)] if parent == pid else []
    return found


def workers_of(fork_server: int, world: World) -> list[int]:
    """Its forks; and nobody has reached the provisioner."""
    assert world.audit("hello") == []
    return children(fork_server)


async def fork_server_of(machine: Machine, *, other_than: int = 0) -> int:
    """The fork server of a machine that has just been started."""
    await until(machine.layout.pid.exists)
    await until(lambda: machine.layout.pid.read_text() != "")
    first = int(machine.layout.pid.read_text())
    found: list[int] = []

    def is_there() -> bool:
        servers = [pid for pid in children(first) if b"runtime.enclave.worker" in command_line(pid)]
        found[:] = [pid for pid in servers if pid != other_than]
        return bool(found)

    await until(partial(is_there))
    return found[0]


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
