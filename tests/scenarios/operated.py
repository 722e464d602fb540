"""A whole system as programs of their own, the parent among them, and its operator: for scenarios of stopping."""

import json
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import trio
from cryptography import x509

from runtime.net.clock import utc_now
from runtime.net.endpoint import Tcp, connect
from runtime.net.http import HttpClient
from runtime.net.tls import TlsStream, client_context
from runtime.provisioner.store import Store
from runtime.simulator.layout import Layout
from runtime.simulator.programs import Program, running
from runtime.simulator.workspace import Simulated, bake, prepare_parent, prepare_provisioner, register

PATIENCE = 60.0
"""Seconds for what takes a few on an idle machine."""


@dataclass(kw_only=True)
class Operated:
    """A running system. `events` are what the parent has shown."""

    layout: Layout
    parent: Program
    public: Tcp
    enclave_pid: int
    events: list[dict[str, Any]]
    arrived: trio.Condition = field(default_factory=trio.Condition)

    async def until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first event that is wanted."""
        with trio.fail_after(PATIENCE):
            async with self.arrived:
                while True:
                    for event in self.events:
                        if wanted(event):
                            return event
                    await self.arrived.wait()

    async def until_state(self, *names: str) -> dict[str, Any]:
        """The first report of one of these states."""
        return await self.until(lambda event: event["kind"] == "state" and event["event"] in names)

    async def until_said(self, line: str) -> dict[str, Any]:
        """The report of a line of a customer process."""
        return await self.until(lambda event: event["kind"] == "log" and event["line"] == line)

    def shown(self, kind: str, *names: str) -> list[dict[str, Any]]:
        """The events of a kind, in order."""
        return [event for event in self.events if event["kind"] == kind and (not names or event["event"] in names)]

    async def command(self, *words: str) -> int:
        """Runs `enclave WORDS` on this parent; its exit status."""
        command = [sys.executable, "-m", "runtime.cli", *words, "--socket", str(self.layout.sockets / "status.sock")]
        with trio.fail_after(PATIENCE):
            return (await trio.run_process(command, check=False, capture_stdout=True, capture_stderr=True)).returncode

    @asynccontextmanager
    async def client(self) -> AsyncGenerator[HttpClient]:
        """A client whose handshake is done."""
        roots = x509.load_pem_x509_certificates(self.layout.ca.read_bytes())
        async with await connect(self.public) as stream:
            tls = await TlsStream.connect(stream, client_context(roots, now=utc_now()), server_name="localhost")
            try:
                yield HttpClient(tls, host="localhost")
            finally:
                await trio.aclose_forcefully(tls)


@asynccontextmanager
async def operated(folder: Path, config: str, scripts: dict[str, str], **record: object) -> AsyncGenerator[Operated]:
    """Starts the system with this enclave.toml, whose processes find `scripts` in their working directory, and waits until it is ready.

    `record` are fields of the operator's record.
    """
    source = folder / "source"
    source.mkdir()
    (source / "enclave.toml").write_text(config)
    for name, text in scripts.items():
        (source / name).write_text(text)
    layout = Layout(folder / "s")
    prepare_provisioner(layout, now=utc_now())
    async with AsyncExitStack() as stack:
        stack.callback(layout.clear)
        url = await stack.enter_async_context(_provisioner(layout))
        simulated = bake(layout, source / "enclave.toml", provisioner=url, names=())
        toml = prepare_parent(layout, simulated, provisioner=url, listen=Tcp("127.0.0.1", 0), now=utc_now())
        register(layout, simulated)
        _change_record(layout, simulated.config.enclave.id, record)
        command = ["-m", "runtime.cli", "parent", str(toml), "--json"]
        parent = await stack.enter_async_context(running("parent", command, layout.logs, json_on_stderr=True))
        system = Operated(layout=layout, parent=parent, public=Tcp("127.0.0.1", 1), enclave_pid=0, events=[])
        nursery = await stack.enter_async_context(trio.open_nursery())
        stack.callback(nursery.cancel_scope.cancel)
        nursery.start_soon(_follow, system)
        listening = await system.until(lambda event: event["event"] == "ready")
        system.public = Tcp.parse(listening["public"])
        layout.open_parent_ports()
        await stack.enter_async_context(_module(layout, simulated))
        enclave = running("enclave", ["-m", "runtime.simulator.machine", str(layout.base)], layout.logs)
        program = await stack.enter_async_context(enclave)
        state = await system.until_state("ready", "failed", "stopped")
        assert state["event"] == "ready", f"{state}\n{program.tail()}"
        system.enclave_pid = int(layout.pid.read_text())
        yield system


def _change_record(layout: Layout, enclave_id: str, changes: dict[str, object]) -> None:
    store = Store(layout.provisioner / "store.db")
    try:
        record = store.record(enclave_id)
        assert record is not None
        store.put_record(replace(record, **changes))  # type: ignore[arg-type] # a test names fields as it needs them
    finally:
        store.close()


async def _follow(system: Operated) -> None:
    async with aclosing(system.parent.lines()) as lines:
        async for line in lines:
            system.events.append(json.loads(line))
            async with system.arrived:
                system.arrived.notify_all()


@asynccontextmanager
async def _provisioner(layout: Layout) -> AsyncGenerator[str]:
    command = ["-m", "runtime.cli", "provisioner", str(layout.provisioner / "provisioner.toml"), "--json"]
    async with running("provisioner", command, layout.logs) as program:
        yield f"https://localhost:{Tcp.parse(json.loads(await _first_line(program))['at']).port}"


@asynccontextmanager
async def _module(layout: Layout, simulated: Simulated) -> AsyncGenerator[None]:
    registers = [f"{index}={value.hex()}" for index, value in simulated.registers.items()]
    command = ["-m", "runtime.simulator.module", str(layout.base), simulated.module_id, *registers]
    async with running("module", command, layout.logs) as program:
        await _first_line(program)
        yield


async def _first_line(program: Program) -> str:
    async with aclosing(program.lines()) as lines:
        async for line in lines:
            return line
    raise AssertionError(program.tail())
