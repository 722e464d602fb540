"""A parent that stops reading, or is gone, while processes run and write: nothing waits for it, and afterwards nothing is missing."""

import os
import signal
from pathlib import Path

import trio

from runtime.protocol.link import Exit, Log, Sequenced, State
from runtime.simulator.hostile_parent import HostileParent
from tests.scenarios.clients import SERVED, open_clients, serving, until, until_status
from tests.scenarios.machines import PATIENCE, Machine, free_port, local_api, real_world
from tests.scenarios.test_survival import app_of, first_process
from tests.scenarios.world import Image, World

CHATTY = """
[[process]]
name = "chatty"
command = ["sh", "-c", "while :; do yes a line of a process that goes on | head -n 2000; sleep 0.2; done"]
user = "1000:1000"

[log]
buffer_size = "128KiB"
"""


class Dammed(trio.abc.HalfCloseableStream):
    """A connection whose reader stands still for as long as `flowing` is not set."""

    def __init__(self, stream: trio.SocketStream, parent: "WilfulParent") -> None:
        self._stream = stream
        self._parent = parent

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        await self._parent.flowing.wait()
        return await self._stream.receive_some(max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()


class WilfulParent(HostileParent):
    """Reads only while it is `flowing`; hangs up on everybody while it `is_gone`."""

    def __init__(self, world: World, image: Image) -> None:
        honest = world.parent(image.config.enclave.id)
        super().__init__(world.nursery, dial=honest.dial, tickets=honest.tickets)
        self.flowing = trio.Event()
        self.flowing.set()
        self.is_gone = False
        self._streams: set[trio.SocketStream] = set()

    async def handle_control(self, stream: trio.SocketStream) -> None:
        """See `HostileParent`."""
        if self.is_gone:
            return
        self._streams.add(stream)
        try:
            await super().handle_control(Dammed(stream, self))  # type: ignore[arg-type]  # all that it uses is a stream's
        finally:
            self._streams.discard(stream)

    async def go(self) -> None:
        """Hangs up."""
        self.is_gone = True
        for stream in set(self._streams):
            await trio.aclose_forcefully(stream)


def in_order(machine: Machine, kind: type[Sequenced]) -> list[Sequenced]:
    return [report for _, report in sorted(machine.parent.reports.items()) if isinstance(report, kind)]


def states(machine: Machine) -> list[str]:
    return [report.name for report in in_order(machine, State) if isinstance(report, State)]


def image_of(world: World) -> Image:
    image = world.image(tables=SERVED.format(port=free_port()) + CHATTY + local_api())
    world.register(image)
    return image


async def live_through(machine: Machine, world: World) -> None:
    """What goes on without a parent: requests, evidence, and the restart of a process that was killed."""
    clients = await open_clients(world, machine)
    await until_status(clients, 200)
    killed = app_of(machine)
    os.kill(killed, signal.SIGKILL)
    await until(lambda: not Path(f"/proc/{killed}").exists())
    await until_status(clients, 200)
    assert (await clients.attest()).result.reference is not None
    assert app_of(machine) != killed


async def test_a_parent_that_never_reads_holds_nothing_up_and_misses_nothing_but_lines(tmp_path: Path) -> None:
    async with real_world(tmp_path) as world:
        image = image_of(world)
        parent = WilfulParent(world, image)
        async with serving(world, image, parent=parent) as machine:
            first = first_process(machine)
            parent.flowing = trio.Event()
            await live_through(machine, world)
            seen = len(in_order(machine, Exit))
            parent.flowing.set()
            await until(lambda: len(in_order(machine, Exit)) > seen)
            await until(lambda: states(machine)[-3:] == ["ready", "starting", "ready"])
            await until(lambda: any(report.dropped for report in in_order(machine, Log) if isinstance(report, Log)))
            assert parent.connections("control") == 1
            assert first_process(machine) == first
        assert states(machine)[-1] == "stopped"


async def test_a_machine_whose_parent_never_reads_again_ends_when_it_is_asked_to(tmp_path: Path) -> None:
    async with real_world(tmp_path) as world:
        image = image_of(world)
        parent = WilfulParent(world, image)
        async with serving(world, image, parent=parent) as machine:
            await until(lambda: machine.lines("chatty") != [])
            parent.flowing = trio.Event()
            os.kill(first_process(machine), signal.SIGTERM)
            with trio.fail_after(PATIENCE):
                await machine.program.wait()


async def test_a_parent_that_is_gone_for_a_while_holds_nothing_up_and_misses_nothing_but_lines(tmp_path: Path) -> None:
    async with real_world(tmp_path) as world:
        image = image_of(world)
        parent = WilfulParent(world, image)
        async with serving(world, image, parent=parent) as machine:
            first = first_process(machine)
            await parent.go()
            await live_through(machine, world)
            parent.is_gone = False
            await until(lambda: parent.journal("link.lost") != [])
            await until(lambda: states(machine)[-3:] == ["ready", "starting", "ready"])
            assert [report.signal for report in in_order(machine, Exit) if isinstance(report, Exit)] == [signal.SIGKILL]
            assert first_process(machine) == first
        assert states(machine)[-1] == "stopped"
