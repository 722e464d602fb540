"""Ends of the control link that a test speaks by hand, good or hostile, beside the real end that it tests."""

import io
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

from runtime.enclave.link import ParentLink
from runtime.parent.console import Console
from runtime.parent.control import Control
from runtime.parent.tickets import NoTicket
from runtime.protocol.link import Ack, Exit, Hello, Journal, Log, Message, Ping, State, Welcome
from runtime.protocol.link_state import LinkConnection, Role
from runtime.protocol.messages import TicketReply
from tests.support.sockets import Wire

BOOT_ID = b"B" * 16
WELCOME = Welcome(ticket=b"T" * 32, instance_id="i-0", host_parameters={"region": "here"})
BARE_WELCOME = Welcome(ticket=None, instance_id="i-0")


def sequences(messages: list[Message]) -> list[int]:
    """The sequences of those messages that have one."""
    return [message.sequence for message in messages if isinstance(message, State | Journal | Log | Exit)]


class End:
    """One end, message by message."""

    def __init__(self, stream: trio.SocketStream, role: Role) -> None:
        self.stream = stream
        self.connection = LinkConnection(role)

    async def send(self, *messages: Message) -> None:
        await self.stream.send_all(b"".join(self.connection.send(message) for message in messages))

    async def receive(self) -> Message | None:
        while (message := self.connection.next_message()) is None:
            data = await self.stream.receive_some(4096)
            if not data:
                return None
            self.connection.receive_data(data)
        return message


class SpokenParent(End):
    """A parent that a test scripts."""

    def __init__(self, stream: trio.SocketStream) -> None:
        super().__init__(stream, "parent")

    async def welcome(self, welcome: Welcome = WELCOME) -> None:
        await self.receive()
        await self.send(welcome)

    async def receive_for_ever(self, into: list[Message]) -> None:
        while (message := await self.receive()) is not None:
            into.append(message)


class SpokenEnclave(End):
    """An enclave that a test scripts."""

    def __init__(self, stream: trio.SocketStream) -> None:
        super().__init__(stream, "enclave")

    async def receive_but_ping(self) -> Message | None:
        while (message := await self.receive()) == Ping():
            pass
        return message

    async def hello(self, boot_id: bytes = BOOT_ID) -> Welcome:
        await self.send(Hello(boot_id=boot_id))
        welcome = await self.receive()
        assert isinstance(welcome, Welcome)
        await trio.testing.wait_all_tasks_blocked()
        return welcome

    async def is_closed(self) -> bool:
        """Whether the parent closes, whatever it still sends before that."""
        with trio.move_on_after(200):
            try:
                while await self.stream.receive_some(65536):
                    pass
            except trio.BrokenResourceError:
                pass
            await trio.testing.wait_all_tasks_blocked()
            return True
        return False


class EnclaveSide:
    """A real `ParentLink`, and the wire to a parent that the test scripts."""

    def __init__(self, nursery: trio.Nursery, *, ring_frames: int) -> None:
        self.drains: list[int] = []
        self.wire = Wire(nursery, self.collecting([]))
        self.link = ParentLink(
            self.wire.connect,
            boot_id=BOOT_ID,
            on_drain=self.drains.append,
            metrics=lambda: {"requests_total": 3},
            now=lambda: 1_700_000_000.5,
            ring_frames=ring_frames,
        )
        self.nursery = nursery

    def collecting(self, into: list[Message], *, welcome: Welcome = WELCOME) -> Callable[[trio.SocketStream], Awaitable[None]]:
        """A good parent."""

        async def handle(stream: trio.SocketStream) -> None:
            parent = SpokenParent(stream)
            await parent.welcome(welcome)
            while (message := await parent.receive()) is not None:
                into.append(message)
                await parent.send(*(Ack(sequence=sequence) for sequence in sequences([message])))

        return handle


@asynccontextmanager
async def enclave_side(*, ring_frames: int = 4096) -> AsyncIterator[EnclaveSide]:
    async with trio.open_nursery() as nursery:
        side = EnclaveSide(nursery, ring_frames=ring_frames)
        try:
            yield side
        finally:
            with trio.CancelScope(shield=True):
                await side.link.aclose()
        nursery.cancel_scope.cancel()


class Tickets:
    """A source that counts, and fails or hangs when told."""

    def __init__(self) -> None:
        self.sold = 0
        self.failure: str | None = None
        self.is_hanging = False

    async def fetch(self) -> TicketReply:
        await trio.lowlevel.checkpoint()
        if self.is_hanging:
            await trio.sleep_forever()
        if self.failure:
            raise NoTicket(self.failure, "told to")
        self.sold += 1
        return TicketReply(ticket=bytes([self.sold]) * 32, lifetime=600)


class ParentSide:
    """A real `Control` with its console, and enclaves that the test speaks."""

    def __init__(self, nursery: trio.Nursery, *, with_tickets: bool) -> None:
        self.stderr = io.StringIO()
        self.console = Console(self.stderr, clock=lambda: 1_700_000_000.0)
        self.tickets = Tickets()
        self.control = Control(
            console=self.console,
            tickets=self.tickets if with_tickets else None,
            instance_id="i-0123",
            host_parameters={"region": "here"},
        )
        self.wire = Wire(nursery, self.control.handle)
        self.nursery = nursery
        self.enclaves: list[SpokenEnclave] = []

    async def enclave(self) -> SpokenEnclave:
        enclave = SpokenEnclave(await self.wire.connect())
        self.enclaves.append(enclave)
        return enclave

    def shown(self, kind: str) -> list[dict[str, object]]:
        return [record for record in self.console.recent if record["kind"] == kind]

    def events(self, kind: str = "parent") -> list[object]:
        return [record["event"] for record in self.shown(kind)]


@asynccontextmanager
async def parent_side(*, with_tickets: bool = True) -> AsyncIterator[ParentSide]:
    async with trio.open_nursery() as nursery:
        side = ParentSide(nursery, with_tickets=with_tickets)
        try:
            yield side
        finally:
            for enclave in side.enclaves:
                enclave.stream.socket.close()
        nursery.cancel_scope.cancel()
