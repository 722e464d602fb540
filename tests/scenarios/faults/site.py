"""Where a fault of the table is provoked: a real machine between a true parent, a true provisioner and a module in the test's hands."""

import os
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import trio

from runtime.net.endpoint import Unix, listen
from runtime.net.serve import serve
from runtime.protocol.nsm import Request, decode_request
from runtime.simulator.layout import Layout
from runtime.simulator.nsm import SimulatedNsm, make_module_id, serve_nsm
from runtime.simulator.programs import Program, running
from tests.scenarios.clients import until
from tests.scenarios.faults.household import Household
from tests.scenarios.faults.true_parent import TrueParent
from tests.scenarios.faulty_machine import JUMP, Broken
from tests.scenarios.leaks import find_leaks
from tests.scenarios.machines import bake, local_api, real_world
from tests.scenarios.world import INSTANCE, Image, World

PATIENCE = 60.0
"""Seconds for what takes one on an idle machine: no end is waited for any longer."""
DRAIN_MS = 20_000
_AGAIN = 5.0


class OddModule(SimulatedNsm):
    """A module whose answers may be altered: `alter` is given a request and the true response. Requests are counted by their kind."""

    alter: Callable[[bytes, bytes], bytes] = staticmethod(lambda _request, response: response)

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.asked: Counter[type[Request]] = Counter()

    def handle(self, request: bytes) -> bytes:
        self.asked[type(decode_request(request))] += 1
        return self.alter(request, super().handle(request))


@dataclass(slots=True, kw_only=True)
class Site:
    """Everything around one machine. Before it is started all of it may be changed; `raw` is its enclave.toml, None for none."""

    world: World
    layout: Layout
    image: Image
    raw: bytes | None
    module: SimulatedNsm
    parent: TrueParent
    broken: Broken = field(default_factory=Broken)
    has_module: bool = True
    running: Program | None = None
    family: Household | None = None

    # Before the start.

    def register(self, **changes: object) -> None:
        """The operator's record of this image, with some fields changed."""
        self.world.register(self.image, **changes)

    def odd_module(self, *, is_debug: bool = False) -> OddModule:
        """Puts another module in the place of the true one."""
        module_id = make_module_id(INSTANCE)
        module = OddModule(self.world.root, module_id=module_id, pcrs=self.image.registers, now=self.world.now, debug=is_debug)
        self.module = module
        return module

    # While it runs.

    @property
    def household(self) -> Household:
        assert self.family is not None, "it was not started"
        return self.family

    @property
    def program(self) -> Program:
        assert self.running is not None, "it was not started"
        return self.running

    def jump(self) -> None:
        """Puts the time of the first process forward by a minute."""
        os.kill(self.household.first, JUMP)

    async def jump_until(self, condition: Callable[[], bool]) -> None:
        """The same, and again while nothing comes of it: it may have been put forward before it was waited for."""
        while not condition():
            self.jump()
            with trio.move_on_after(_AGAIN):
                await until(condition)

    def shown(self, event: str, **fields: object) -> bool:
        """Whether the parent has a record of an event, of the enclave's journal unless `kind` is given."""
        return any(_is(record, event, fields) for record in self.parent.console.recent)

    async def seen(self, event: str, **fields: object) -> None:
        """Until the parent has it."""
        with trio.move_on_after(PATIENCE):
            await self.parent.until_shown(lambda record: _is(record, event, fields))
            return
        told = [(record["event"], _value(record, "reason")) for record in self.parent.console.recent]
        raise AssertionError(f"{event} {fields} was not seen, but {told}; the machine said\n{self.program.tail()}")

    async def says(self, text: str) -> None:
        """Until a process has written a line that begins so."""
        await until(lambda: any(str(record.get("line", "")).startswith(text) for record in self.parent.console.recent))

    async def ready(self) -> None:
        """Until the enclave is ready, on a link that is up."""
        await until(lambda: self.parent.control.is_ready)

    async def staffed(self) -> list[int]:
        """The fork server and the workers, in the order of `Household.workers`, once the one that provisioned has gone."""
        expected = 2 + (self.image.config.ingress.mode != "off") + (not self.shown("egress.unavailable"))
        await until(lambda: len(self.household.workers()) == expected)
        return self.household.workers()

    async def pid_of(self, process: str) -> int:
        """The number, on this machine, of a customer process that runs, the last that was started."""
        found: list[int] = []

        def is_there() -> bool:
            inside = [_value(record, "pid") for record in self.parent.console.recent if record["event"] == "process_started"]
            found[:] = self.household.numbered(inside[-1]) if inside else []
            return bool(found)

        await until(is_there)
        return found[0]

    async def over(self) -> int:
        """Until its program has ended; the exit status."""
        with trio.fail_after(PATIENCE):
            return await self.program.wait()

    async def drained(self) -> None:
        """Asks it to end, as an operator does, and waits for its last word."""
        self.parent.control.drain(DRAIN_MS)
        await self.over()

    # Afterwards.

    def leaks(self) -> list[str]:
        """The names of the secrets that stand in anything that the parent has recorded, or in any log file."""
        values = {name: secret.value.reveal() for name, secret in self.world.secrets.items()}
        return find_leaks([*self.parent.recorded(), *_files(self.layout.parent), *_files(self.layout.logs)], values)


def _is(record: dict[str, Any], event: str, fields: dict[str, object]) -> bool:
    return all(_value(record, name) == value for name, value in {"kind": "journal", "event": event, **fields}.items())


def _value(record: dict[str, Any], name: str) -> object:
    """A field of a record, wherever the console puts it."""
    return record.get(name, record.get(f"fields.{name}"))


def _files(folder: Path) -> Iterator[bytes]:
    return (path.read_bytes() for path in folder.rglob("*") if path.is_file())


@asynccontextmanager
async def fault_site(folder: Path, *, tables: str, provisioner: str = "", channel: str = "exporter") -> AsyncGenerator[Site]:
    """A site at which nothing is wrong yet, with a registered image."""
    layout = Layout(folder / "machine")
    layout.make()
    with layout.events.open("a") as events:
        async with real_world(folder) as world:
            image = world.image(tables=tables + local_api(), channel=channel, provisioner=provisioner)
            world.register(image)
            parent = TrueParent(world.nursery, events, instance_id=INSTANCE, tickets=world.ticket_source(), dial=world.dial)
            yield Site(world=world, layout=layout, image=image, raw=image.raw, module=world.module(image), parent=parent)


@asynccontextmanager
async def started(site: Site) -> AsyncGenerator[None]:
    """Starts the machine of a site, and stops it when the block ends."""
    layout, nursery = site.layout, site.world.nursery
    bake(layout, site.raw)
    site.broken.write(layout.base)
    for port, cable in ((9001, site.parent.control_cable), (9002, site.parent.egress_cable)):
        listener = await listen(layout.parent_port(port), mode=0o666)
        await nursery.start(partial(serve, listener, cable.handle, limit=16))
    if site.has_module:
        await nursery.start(serve_nsm, site.module, await listen(Unix(str(layout.device))))
    async with running("enclave", ["-m", "tests.scenarios.faulty_machine", str(layout.base)], layout.logs) as program:
        site.running = program
        await until(lambda: layout.pid.exists() and layout.pid.read_text() != "")
        site.family = Household(int(layout.pid.read_text()))
        yield
