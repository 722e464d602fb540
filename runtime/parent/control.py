"""The parent's end of the control link: welcomes the enclave, hands it tickets, takes its reports, asks it to drain.

Every byte from the enclave is hostile. A connection that breaks the protocol, falls silent or stops reading is closed, and the enclave
may come again; what is kept for it is one frame, a few queued messages and one record of the boot. The latest connection counts: an
enclave that reconnects may do so before the parent has noticed that its old connection died.
"""

from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

import trio

from runtime.net.buckets import TokenBuckets
from runtime.net.serve import CONNECTION_ERRORS
from runtime.parent.console import Console, Level
from runtime.parent.record import CLOSING, FRESH_SECONDS, Boot
from runtime.parent.tickets import NoTicket
from runtime.protocol.link import (
    Ack,
    Drain,
    Dropped,
    Exit,
    FromParent,
    Hello,
    Journal,
    Log,
    Message,
    Metrics,
    MetricsWanted,
    Ping,
    Sealed,
    Sequenced,
    State,
    Ticket,
    TicketWanted,
    Welcome,
)
from runtime.protocol.link_state import LinkConnection
from runtime.protocol.messages import TicketReply

HELLO_DEADLINE = 10.0
WELCOME_TICKET_DEADLINE = 5.0
"""Seconds that welcome waits for a ticket before it goes without one: the link must also work while the provisioner does not."""
PING_INTERVAL = 5.0
SILENCE_DEADLINE = 60.0
SEND_DEADLINE = 30.0
TICKETS_PER_SECOND = 0.2
TICKETS_BURST = 5

_CHUNK = 64 * 1024
_QUEUE = 16
_READY = frozenset({"ready", "degraded"})
"""States in which clients are served; "degraded" is one that cannot renew its lease now."""
_STATE_LEVELS: dict[str, Level] = {"failed": "error", "degraded": "warning"}


class TicketSource(Protocol):
    """Where tickets come from."""

    async def fetch(self) -> TicketReply:
        """A fresh ticket. Raises `NoTicket`; has a deadline of its own."""


class NotConnected(Exception):
    """No enclave is on the link now, or it takes no more messages."""


class Control:
    """Serves control connections (`handle`), one enclave at a time."""

    def __init__(
        self, *, console: Console, tickets: TicketSource | None, instance_id: str, host_parameters: Mapping[str, str]
    ) -> None:
        self._console = console
        self._tickets = tickets
        self._instance_id = instance_id
        self._host_parameters = host_parameters
        self._ticket_buckets = TokenBuckets(rate=TICKETS_PER_SECOND, burst=TICKETS_BURST)
        self._session: _Session | None = None
        self._drain_until: float | None = None
        self._metrics: Mapping[str, int] = {}
        self._metrics_arrived = trio.Event()
        self._state_arrived = trio.Event()
        self.boot: Boot | None = None
        self.tickets_given = 0
        self.ticket_refused: str | None = None

    @property
    def is_connected(self) -> bool:
        """Whether a welcomed enclave is on the link."""
        return self._session is not None

    @property
    def is_ready(self) -> bool:
        """Whether the enclave says that it is ready, on a link that is up, and has been heard of not long ago."""
        return self.is_connected and self.boot is not None and self.boot.state in _READY and self.is_fresh

    @property
    def is_fresh(self) -> bool:
        """Whether the enclave has been heard of not long ago."""
        return self.boot is not None and trio.current_time() - self.boot.heard <= FRESH_SECONDS

    @property
    def is_closing(self) -> bool:
        """Whether the enclave was asked to drain, or says that it drains or has ended: it takes no new clients."""
        return self._drain_until is not None or (self.boot is not None and self.boot.state in CLOSING)

    @property
    def drain_seconds_left(self) -> float | None:
        """Until the deadline of the drain; None when none was asked in this boot."""
        return None if self._drain_until is None else max(0.0, self._drain_until - trio.current_time())

    def drain(self, deadline_ms: int) -> None:
        """Asks the enclave to stop within `deadline_ms` milliseconds, or sooner if that was asked before; asked again after a reconnect.

        Raises `NotConnected`; then nothing is asked later either.
        """
        self._offer(Drain(deadline_ms=deadline_ms))
        until = trio.current_time() + deadline_ms / 1000
        self._drain_until = until if self._drain_until is None else min(self._drain_until, until)

    async def until_over(self) -> None:
        """Waits until the enclave of this moment has stopped or failed; the deadline is the caller's."""
        boot = self.boot
        while boot is not None and boot is self.boot and not boot.is_over:
            await self._state_arrived.wait()

    async def metrics(self) -> Mapping[str, int]:
        """The enclave's metrics, asked for now; the deadline is the caller's. Raises `NotConnected`."""
        self._offer(MetricsWanted())
        await self._metrics_arrived.wait()
        return self._metrics

    async def handle(self, stream: trio.SocketStream) -> None:
        """Serves one connection to its end. Raises what ends a connection (net/serve.py)."""
        connection = LinkConnection("parent")
        with trio.fail_after(HELLO_DEADLINE):
            hello = await _receive(stream, connection)
        if not isinstance(hello, Hello):
            return
        boot = self._boot_of(hello.boot_id)
        welcome = Welcome(
            ticket=await self._welcome_ticket(boot), instance_id=self._instance_id, host_parameters=self._host_parameters
        )
        with trio.fail_after(SEND_DEADLINE):
            await stream.send_all(connection.send(welcome))
        if boot is not self.boot:
            return
        session = _Session(stream, connection)
        previous, self._session = self._session, session
        if previous is not None:
            previous.scope.cancel()
        try:
            if (left := self.drain_seconds_left) is not None:
                session.offer(Drain(deadline_ms=int(left * 1000)))
            await session.run(lambda message: self._take(boot, session, message))
        except* CONNECTION_ERRORS:
            self._tell_lost(boot, session, "broken")
            raise
        else:
            self._tell_lost(boot, session, "closed")
        finally:
            if self._session is session:
                self._session = None

    def _boot_of(self, boot_id: bytes) -> Boot:
        if self.boot is None or self.boot.boot_id != boot_id:
            now = trio.current_time()
            self.boot = Boot(boot_id=boot_id, began=now, heard=now, since=now)
            self._drain_until = None
            self._tell_state()
            self._console.parent("enclave.booted", boot_id=boot_id)
        else:
            self._console.parent("enclave.reconnected", boot_id=boot_id)
        return self.boot

    async def _welcome_ticket(self, boot: Boot) -> bytes | None:
        if boot.has_ticket:
            return None
        ticket = None
        with trio.move_on_after(WELCOME_TICKET_DEADLINE) as scope:
            ticket = await self._fetch_ticket()
        if scope.cancelled_caught:
            self._no_ticket("timeout")
        boot.has_ticket = ticket is not None
        return ticket

    async def _fetch_ticket(self) -> bytes | None:
        if self._tickets is None:
            return None
        if self._ticket_buckets.take("ticket", now=trio.current_time()):
            self._no_ticket("rate_limited")
            return None
        try:
            ticket = (await self._tickets.fetch()).ticket
        except NoTicket as error:
            self._no_ticket(error.reason, detail=error.detail)
            return None
        self.tickets_given += 1
        self.ticket_refused = None
        return ticket

    def _no_ticket(self, reason: str, **details: str) -> None:
        self.ticket_refused = reason
        self._console.warn("ticket.none", reason=reason, **details)

    async def _answer_ticket(self, session: "_Session") -> None:
        try:
            session.offer(Ticket(ticket=await self._fetch_ticket()))
        finally:
            session.is_fetching = False

    def _take(self, boot: Boot, session: "_Session", message: Message) -> None:
        """One message after welcome; the state machine has let only the enclave's own pass."""
        boot.heard = trio.current_time()
        match message:
            case State() | Journal() | Log() | Sealed() | Exit():
                session.acknowledge = max(session.acknowledge, message.sequence)
                if message.sequence > boot.last_sequence:
                    boot.last_sequence = message.sequence
                    boot.take(message, boot.heard)
                    self._show(boot, message)
            case Dropped(total=total) if total > boot.dropped:
                self._console.show("dropped", "warning", "dropped", {"count": total - boot.dropped, "total": total})
                boot.dropped = total
            case Metrics(values=values):
                self._metrics = values
                self._metrics_arrived.set()
                self._metrics_arrived = trio.Event()
            case TicketWanted() if not session.is_fetching:
                session.is_fetching = True
                session.start(self._answer_ticket)
            case _:
                pass

    def _tell_lost(self, boot: Boot, session: "_Session", reason: str) -> None:
        """An enclave that is gone without a last word, for all that can be seen from here."""
        if self._session is session and not boot.is_over:
            self._console.warn("enclave.disconnected", boot_id=boot.boot_id, state=boot.state, reason=reason)

    def _tell_state(self) -> None:
        self._state_arrived.set()
        self._state_arrived = trio.Event()

    def _show(self, boot: Boot, message: Sequenced) -> None:
        show = self._console.show
        sequence = message.sequence
        match message:
            case State(name=name, reason=reason, unix_ms=unix_ms):
                self._tell_state()
                level = _STATE_LEVELS.get(name, "info")
                show("state", level, name, {"reason": reason, "enclave_unix_ms": unix_ms, "sequence": sequence})
            case Journal(level=level, event=event, fields=fields):
                show("journal", level, event, {"sequence": sequence, **{f"fields.{name}": value for name, value in fields.items()}})
            case Log(process=process, stream=stream, line=line, dropped=dropped, is_partial=is_partial):
                partial = {"partial": True} if is_partial else {}
                show("log", "info", process, {"sequence": sequence, "stream": stream, "dropped": dropped, **partial}, line=line)
            case Sealed(sealed=sealed, lines=lines):
                kept = {"sealed": b64encode(sealed).decode()}
                show("sealed", "info", "lines", {"boot_id": boot.boot_id, "sequence": sequence, "count": lines}, kept=kept)
            case Exit(process=process, code=code, signal=signal):
                level = "info" if code == 0 else "warning"
                show("exit", level, process, {"sequence": sequence, "code": code, "signal": signal})

    def _offer(self, message: FromParent) -> None:
        if self._session is None:
            raise NotConnected("no enclave is connected")
        self._session.offer(message)


class _Session:
    """A welcomed connection: reads until the enclave ends or breaks it, writes from one small queue."""

    def __init__(self, stream: trio.SocketStream, connection: LinkConnection) -> None:
        self._stream = stream
        self._connection = connection
        self._queue, self._queued = trio.open_memory_channel[FromParent](_QUEUE)
        self._nursery: trio.Nursery | None = None
        self.scope = trio.CancelScope()
        self.acknowledge = 0
        self.is_fetching = False

    def offer(self, message: FromParent) -> None:
        """Queues `message`. Raises `NotConnected` when the enclave reads so slowly that the queue is full."""
        try:
            self._queue.send_nowait(message)
        except trio.WouldBlock:
            raise NotConnected("the enclave does not read") from None

    def start(self, task: Callable[["_Session"], Awaitable[None]]) -> None:
        """Runs `task` while the session lasts."""
        assert self._nursery is not None
        self._nursery.start_soon(task, self)

    async def run(self, take: Callable[[Message], None]) -> None:
        with self.scope, self._queue, self._queued:
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(self._write)
                self._nursery.start_soon(self._ping)
                await self._read(take)
                self._nursery.cancel_scope.cancel()

    async def _read(self, take: Callable[[Message], None]) -> None:
        while True:
            while (message := self._connection.next_message()) is not None:
                take(message)
            if self.acknowledge:
                await self._queue.send(Ack(sequence=self.acknowledge))
                self.acknowledge = 0
            with trio.fail_after(SILENCE_DEADLINE):
                data = await self._stream.receive_some(_CHUNK)
            if not data:
                return
            self._connection.receive_data(data)

    async def _write(self) -> None:
        async for message in self._queued:
            with trio.fail_after(SEND_DEADLINE):
                await self._stream.send_all(self._connection.send(message))

    async def _ping(self) -> None:
        while True:
            await self._queue.send(Ping())
            await trio.sleep(PING_INTERVAL)


async def _receive(stream: trio.SocketStream, connection: LinkConnection) -> Message | None:
    """The next message, None at the end of the stream."""
    while (message := connection.next_message()) is None:
        data = await stream.receive_some(_CHUNK)
        if not data:
            return None
        connection.receive_data(data)
    return message
