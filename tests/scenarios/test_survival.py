"""What the first process outlives: a machine that has no descriptor left, while everything below it dies."""

import errno
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path

import trio

from tests.scenarios.clients import SERVED, open_clients, serving, until, until_status
from tests.scenarios.machines import Machine, connect_ingress, free_port, local_api, real_world
from tests.scenarios.test_memory import workers_of
from tests.scenarios.test_time import children, command_line, states


@contextmanager
def no_descriptor_left(pid: int) -> Iterator[None]:
    """Whatever this process opens is refused with EMFILE; it may hold what it has."""
    taken = {int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    lowest = next(number for number in range(len(taken) + 1) if number not in taken)
    own = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (lowest, own[1]))
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, own)


def first_process(machine: Machine) -> int:
    return int(machine.layout.pid.read_text())


def app_of(machine: Machine) -> int:
    """The customer's process."""
    (found,) = [pid for pid in children(first_process(machine)) if b"hello.py" in command_line(pid)]
    return found


async def test_without_a_descriptor_pid_1_starts_nothing_and_when_there_are_some_again_everything(tmp_path: Path) -> None:
    async with real_world(tmp_path) as world:
        image = world.image(tables=SERVED.format(port=free_port()) + local_api())
        world.register(image)
        async with serving(world, image) as machine:
            clients = await open_clients(world, machine)
            await until_status(clients, 200)
            first, journal = first_process(machine), machine.parent.journal
            with no_descriptor_left(first):
                assert (await clients.attest()).result.reference is not None
                for pid in (app_of(machine), *workers_of(machine)):
                    os.kill(pid, signal.SIGKILL)
                await until(lambda: len(journal("process.start_delayed")) >= 3)
                await until(lambda: len([each for each in journal("worker.ended") if "unstarted" in str(each.fields)]) >= 3)
                await until(lambda: len([each for each in journal("fork_server.ended") if "unstarted" in str(each.fields)]) >= 1)
                assert states(machine)[-1] == ("starting", "")
            await until(lambda: states(machine)[-1] == ("ready", ""))
            await until_status(clients, 200)
            assert (await clients.attest()).result.reference is not None
            assert first_process(machine) == first
            delayed = journal("process.start_delayed")[0]
        assert (delayed.fields["process"], delayed.fields["reason"]) == ("app", "spawn_failed")
        assert delayed.fields["errno"] == errno.errorcode[errno.EMFILE]
        assert states(machine)[-1] == ("stopped", "")


async def test_without_a_descriptor_a_drain_ends_as_any_other(tmp_path: Path) -> None:
    async with real_world(tmp_path) as world:
        image = world.image(tables=SERVED.format(port=free_port()) + local_api())
        world.register(image)
        async with serving(world, image) as machine:
            first = first_process(machine)
            with no_descriptor_left(first):
                os.kill(first, signal.SIGTERM)
                assert (await machine.ended())[:2] == ("stopped", "")
        assert [each.signal for each in machine.exits()] == [signal.SIGTERM]


DESCRIPTORS = 40
"""Enough for a worker that has just begun and a client of it."""


async def test_workers_that_have_run_out_of_descriptors_let_clients_wait_and_lose_none(tmp_path: Path) -> None:
    async with real_world(tmp_path) as world:
        image = world.image(tables=SERVED.format(port=free_port()) + local_api())
        world.register(image)
        async with serving(world, image) as machine:
            clients = await open_clients(world, machine)
            await until_status(clients, 200)
            fork_server = fork_server_of(machine)
            resource.prlimit(fork_server, resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
            before = workers_of(machine)
            for pid in before - {fork_server}:
                os.kill(pid, signal.SIGKILL)
            await until(lambda: len(workers_of(machine) - before) == len(before) - 1)
            await until_status(clients, 200)
            workers = workers_of(machine)
            statuses: list[int] = []

            async def ask() -> None:
                statuses.append((await clients.get("/")).status)

            async with trio.open_nursery() as nursery, AsyncExitStack() as silent:
                for _ in range(2 * len(workers) * DESCRIPTORS):
                    await silent.enter_async_context(await connect_ingress(machine))
                await until(lambda: len(machine.parent.journal("traffic.ingress_ended")) >= 4)
                for _ in range(4):
                    nursery.start_soon(ask)
            assert statuses == 4 * [200]
            assert workers_of(machine) == workers
            assert (await clients.attest()).result.reference is not None
        assert [each.fields["reason"] for each in machine.parent.journal("worker.ended") if "killed" not in str(each.fields)] == []


def fork_server_of(machine: Machine) -> int:
    """The first of them, of which every other is forked."""
    return min(workers_of(machine), key=lambda pid: int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]))


async def test_whoever_is_killed_the_first_process_goes_on_and_everybody_is_back(tmp_path: Path) -> None:
    async with real_world(tmp_path) as world:
        image = world.image(tables=SERVED.format(port=free_port()) + local_api())
        world.register(image)
        async with serving(world, image) as machine:
            clients = await open_clients(world, machine)
            first = first_process(machine)
            for time in (1, 2, 3):
                workers, app = workers_of(machine), app_of(machine)
                for pid in (app, *workers):
                    os.kill(pid, signal.SIGKILL)
                await until(lambda old=workers: len(workers_of(machine) - old) == len(old))  # type: ignore[misc]
                await machine.until(lambda time=time: states(machine)[-2 * time :] == time * [("starting", ""), ("ready", "")])  # type: ignore[misc]
                await until_status(clients, 200)
                assert (await clients.attest()).result.reference is not None
            assert first_process(machine) == first
        assert [each.signal for each in machine.exits()[:-1]] == 3 * [signal.SIGKILL]
