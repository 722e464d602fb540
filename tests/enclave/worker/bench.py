"""PID 1's side of the workers on a bench: a simulated module, a real fork server or a worker that the test itself plays."""

import errno
import os
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import trio

from runtime.enclave.config import EnclaveConfig, load_enclave_config
from runtime.enclave.identity.nsm import Nsm
from runtime.enclave.link import TicketUnavailable
from runtime.enclave.process.fork_server import Forked, ForkServer
from runtime.enclave.process.reaper import Reaper
from runtime.enclave.process.subreaper import become_subreaper
from runtime.enclave.process.workers import Services
from runtime.protocol.framing import FrameDecoder
from runtime.protocol.link_values import JournalFields, Level
from runtime.protocol.worker_link import WORKER_FRAME_MAX, FromFirst, FromWorker, decode_from_first, encode
from runtime.simulator.nsm import SimulatedNsm, make_module_id
from runtime.simulator.pki import make_root
from tests.enclave.test_config import PROVISIONER

CONFIG = f"""
version = 1
[enclave]
id = "bench"
[[process]]
name = "app"
command = ["true"]
ready = {{ tcp = "127.0.0.1:1", interval = "100ms" }}
[tls]
names = ["app.example"]
{PROVISIONER}
""".encode()


class InMemoryDevice:
    """The module without a socket. `stall` holds every answer back until it is set."""

    def __init__(self) -> None:
        now = datetime.now(UTC)
        self.module = SimulatedNsm(make_root(now=now), module_id=make_module_id("i-0123456789abcdef0"), pcrs={}, now=lambda: now)
        self.requests: list[bytes] = []
        self.stall: trio.Event | None = None

    @property
    def is_occupied(self) -> bool:
        return self.stall is not None and not self.stall.is_set() and bool(self.requests)

    async def exchange(self, request: bytes) -> bytes:
        self.requests.append(request)
        if self.stall is not None:
            await self.stall.wait()
        await trio.lowlevel.checkpoint()
        return self.module.handle(request)


@dataclass(slots=True)
class Played:
    """A worker process that is the test: its end of the link, and what PID 1 did to it."""

    stream: trio.SocketStream
    descriptors: list[int]
    killed: trio.Event = field(default_factory=trio.Event)
    frames: FrameDecoder = field(default_factory=lambda: FrameDecoder(limit=WORKER_FRAME_MAX))
    pid: int = 1 << 30
    code: int | None = None  # it ended by itself, before it was killed

    async def ended(self) -> None:
        if self.code is None:
            await self.killed.wait()

    async def wait(self) -> int:
        await self.killed.wait()
        return -9 if self.code is None else self.code

    def kill(self) -> None:
        self.killed.set()

    async def say(self, message: FromWorker | bytes) -> None:
        await self.stream.send_all(message if isinstance(message, bytes) else encode(message))

    async def hear(self) -> FromFirst:
        while (frame := self.frames.next_frame()) is None:
            data = await self.stream.receive_some(1 << 16)
            assert data, "PID 1 closed the link"
            self.frames.receive_data(bytes(data))
        return decode_from_first(frame[0])


class PlayedForkServer(ForkServer):
    """Gives each worker that is forked to the test. So many `refusals` come first, as on a machine without memory."""

    def __init__(self) -> None:
        self.refusals = 0
        self._send, self.workers = trio.open_memory_channel[Played](64)
        self._played: list[Played] = []

    async def fork(self, descriptors: list[int]) -> Forked:
        if self.refusals:
            self.refusals -= 1
            raise OSError(errno.ENOMEM, "no memory")
        link = socket.socket(fileno=os.dup(descriptors[0]))
        link.setblocking(False)
        played = Played(trio.SocketStream(trio.socket.from_stdlib_socket(link)), descriptors[1:])
        self._played.append(played)
        await self._send.send(played)
        return played  # type: ignore[return-value]  # it plays the process

    async def aclose(self) -> None:
        """Closes the test's ends."""
        for played in self._played:
            await played.stream.aclose()


class Noted(list[tuple[str, JournalFields, Level]]):
    """The journal, and the next time that something comes into it."""

    def __init__(self) -> None:
        self.more = trio.Event()

    def note(self, event: str, fields: JournalFields, level: Level) -> None:
        self.append((event, fields, level))
        self.more.set()
        self.more = trio.Event()


@dataclass(slots=True)
class Bench:
    services: Services
    device: InMemoryDevice
    config: EnclaveConfig
    journal: Noted
    tickets: list[bytes]

    async def until(self, event: str) -> None:
        """The journal has it."""
        while event not in self.events():
            await self.journal.more.wait()

    def events(self) -> list[str]:
        return [event for event, _, _ in self.journal]


@asynccontextmanager
async def bench(fork_server: ForkServer | None = None) -> AsyncGenerator[Bench]:
    """Services for workers; without a fork server of the test's own the real one runs, and the reaper with it."""
    device = InMemoryDevice()
    config = load_enclave_config(CONFIG, "enclave.toml")
    journal = Noted()
    tickets: list[bytes] = []
    reaper = Reaper()

    async def ticket() -> bytes:
        await trio.lowlevel.checkpoint()
        if not tickets:
            raise TicketUnavailable("none")
        return tickets.pop(0)

    async with trio.open_nursery() as nursery:
        if fork_server is None:
            become_subreaper()  # as the enclave is, when it is not PID 1: workers become children of this process
            fork_server = ForkServer(reaper)
            nursery.start_soon(reaper.run)
            nursery.start_soon(fork_server.run)
        services = Services(
            nsm=Nsm(device, deadline=0.5),
            config_digest=config.digest,
            ticket=ticket,
            note=journal.note,
            reaper=reaper,
            fork_server=fork_server,
        )
        yield Bench(services, device, config, journal, tickets)
        nursery.cancel_scope.cancel()
