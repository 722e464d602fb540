"""A machine of the simulator as a program: the enclave's whole boot, its workers and customer processes, between a provisioner, a security
module and a parent that are in the test's hands. Time is real here, for it is processes that take it."""

import json
import shutil
import socket
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio

from runtime.enclave.platform import DEFAULT_PATH
from runtime.net.clock import utc_now
from runtime.net.endpoint import Unix, connect, listen
from runtime.net.serve import serve
from runtime.protocol.link import Exit, Log
from runtime.simulator.hostile_parent import HostileParent
from runtime.simulator.layout import Layout
from runtime.simulator.nsm import Faults, SimulatedNsm, serve_nsm
from runtime.simulator.programs import Program, running
from tests.scenarios.world import Image, World, open_world

PATIENCE = 30.0
"""Seconds for a boot on a busy machine; a good one takes one."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A running machine."""

    layout: Layout
    parent: HostileParent
    program: Program

    def lines(self, process: str, stream: str = "stdout") -> list[str]:
        """What a customer process has written."""
        return [
            report.line.decode()
            for _, report in sorted(self.parent.reports.items())
            if isinstance(report, Log) and (report.process, report.stream) == (process, stream)
        ]

    def report(self, process: str) -> dict[str, object]:
        """The one line of JSON that a customer process has written."""
        (line,) = self.lines(process)
        found: dict[str, object] = json.loads(line)
        return found

    def exits(self) -> list[Exit]:
        """The ends of customer processes."""
        return [report for _, report in sorted(self.parent.reports.items()) if isinstance(report, Exit)]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits for what the parent is told."""
        with trio.fail_after(PATIENCE):
            await self.parent.until(lambda _: condition())

    async def ended(self) -> tuple[str, str, int]:
        """(last state, its reason, exit status), once it is over."""
        with trio.fail_after(PATIENCE):
            state = await self.parent.until_state("failed", "stopped")
            return state.name, state.reason, await self.program.wait()


@asynccontextmanager
async def real_world(folder: Path) -> AsyncGenerator[World]:
    """A world whose time is the machine's own."""
    async with open_world(folder, utc_now) as world:
        yield world


@asynccontextmanager
async def running_machine(
    world: World,
    image: Image,
    *,
    parent: HostileParent | None = None,
    faults: Faults | None = None,
    module: SimulatedNsm | None = None,
    has_module: bool = True,
    program: str = "runtime.simulator.machine",
) -> AsyncGenerator[Machine]:
    """Starts a machine with this image and stops it when the block ends. Scripts of the customer's are beside the image.

    `program` is the module that runs the machine, another than the simulator's where the machine is to be an odd one.
    """
    layout = Layout(world.folder / "machine")
    layout.make()
    bake(layout, image.raw)
    parent = parent or world.parent(image.config.enclave.id)
    module = module or world.module(image)
    module.faults = faults or module.faults
    for port, handler in ((9001, parent.handle_control), (9002, parent.handle_egress)):
        await world.nursery.start(partial(serve, await listen(layout.parent_port(port), mode=0o666), handler, limit=16))
    if has_module:
        await world.nursery.start(serve_nsm, module, await listen(Unix(str(layout.device))))
    try:
        async with running("enclave", ["-m", program, str(layout.base)], layout.logs) as started:
            yield Machine(layout=layout, parent=parent, program=started)
    finally:
        shutil.rmtree(layout.sockets)  # which are elsewhere when the test's own folder has a long name


def bake(layout: Layout, raw: bytes | None) -> None:
    """Writes what is baked: enclave.toml, unless it is to be missing, and the image's config."""
    if raw is not None:
        (layout.enclave / "enclave.toml").write_bytes(raw)
    path = f"PATH={Path(sys.base_prefix) / 'bin'}:{DEFAULT_PATH}"
    (layout.enclave / "image.json").write_text(json.dumps({"Env": [path], "WorkingDir": str(layout.enclave)}))


def write_script(world: World, name: str, text: str) -> None:
    """A script in the customer's working directory."""
    folder = Layout(world.folder / "machine").enclave
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


def local_api() -> str:
    """The table of a local API on a port that is free: where no network namespace can be had, ports are this machine's own."""
    return f"""
[attestation]
listen = "tcp:127.0.0.1:{free_port()}"
"""


def free_port() -> int:
    """A loopback port on which nothing listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def connect_ingress(machine: Machine, port: int = 8443) -> trio.SocketStream:
    """A connection to the enclave's ingress, as the parent makes it."""
    return await connect(machine.layout.enclave_port(port))
