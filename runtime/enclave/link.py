"""The enclave's end of the control link: reports to the parent, takes its tickets and its request to drain.

Runs in PID 1. The parent is believed in nothing: it may lie, stall or vanish, and none of that blocks or ends the caller. What is
reported goes to bounded rings and is sent again after a reconnect until the parent has acknowledged it. Lines of the customer's processes
come last: a few are on their way at any time, the rest waits in a backlog (enclave/logs).
"""

import math
from collections.abc import Awaitable, Callable, Mapping

import trio

from runtime.enclave.logs.backlog import Backlog, Numbered
from runtime.enclave.logs.journal import JournalGate
from runtime.enclave.ring import Outbox
from runtime.net.clock import unix_now
from runtime.net.failures import STREAM_ERRORS
from runtime.protocol.errors import Malformed, ProtocolError
from runtime.protocol.link import (
    Ack,
    Drain,
    Dropped,
    Exit,
    FromEnclave,
    Hello,
    Journal,
    Message,
    Metrics,
    MetricsWanted,
    Ping,
    Pong,
    Sequenced,
    State,
    Ticket,
    TicketWanted,
    Welcome,
    encode_message,
)
from runtime.protocol.link_state import LinkConnection
from runtime.protocol.link_values import BYTES_MAX, TEXT_MAX, Level, StateName, Stream

WELCOME_DEADLINE = 20.0
SILENCE_DEADLINE = 60.0
SEND_DEADLINE = 30.0
BACKOFF_LEAST = 0.1
BACKOFF_MOST = 1.0
"""Seconds: a parent that is back after a restart is met at once, and takes that many attempts easily."""
STEADY = 10.0
"""Seconds that a connection has lasted after which the pauses begin anew: a parent that fails right after its welcome gains nothing."""
RING_FRAMES = 4096
RING_BYTES = 2 * 1024 * 1024
"""Of states, events and exits. Lines have bounds of their own."""

_CHUNK = 16 * 1024
_LINES_ON_THEIR_WAY = 128


class TicketUnavailable(Exception):
    """The parent has no ticket to give now."""


class ParentLink:
    """Reports any time; `await connect()`, then `run` in a nursery. `connect_stream` makes a connection to the parent's control port.

    `metrics` is asked for values when the parent wants them. `on_drain` gets the milliseconds that the parent gives, maybe repeatedly.
    `on_up` is told when the link comes up or goes down. Who knows the config puts a `backlog` of its size in place before the first
    line comes, and tells the `gate` what may pass.
    """

    def __init__(
        self,
        connect_stream: Callable[[], Awaitable[trio.SocketStream]],
        *,
        boot_id: bytes,
        on_drain: Callable[[int], None],
        metrics: Callable[[], Mapping[str, int]] = dict,
        now: Callable[[], float] = unix_now,
        ring_frames: int = RING_FRAMES,
        ring_bytes: int = RING_BYTES,
    ) -> None:
        self._connect_stream = connect_stream
        self._boot_id = boot_id
        self._on_drain = on_drain
        self.on_up: Callable[[bool], None] = lambda _is_up: None
        self._metrics = metrics
        self._now = now
        self._outbox = Outbox(most_frames=ring_frames, most_bytes=ring_bytes)
        self.backlog = Backlog()
        self.gate = JournalGate()
        self._open: tuple[trio.SocketStream, LinkConnection] | None = None
        self._welcome: Welcome | None = None
        self._ticket: bytes | None = None
        self._ticket_wanted = False
        self._ticket_due = False
        self._ticket_answered = trio.Event()
        self._metrics_due = False
        self._pong_due = False
        self._wake = trio.Event()
        self._acknowledged = trio.Event()

    @property
    def welcome(self) -> Welcome:
        """The first welcome of this boot; what later connections say does not change it."""
        assert self._welcome is not None, "connect() comes first"
        return self._welcome

    @property
    def is_up(self) -> bool:
        """Whether a parent is there now."""
        return self._open is not None

    async def connect(self) -> Welcome:
        """Tries until a parent has welcomed us; the deadline is the caller's. `run` goes on with that connection."""
        pause = BACKOFF_LEAST
        while not await self._try_open():
            await trio.sleep(pause)
            pause = min(2 * pause, BACKOFF_MOST)
        return self.welcome

    async def run(self) -> None:
        """Keeps the link up until cancelled."""
        pause = BACKOFF_LEAST
        try:
            while True:
                if self._open is not None or await self._try_open():
                    began = trio.current_time()
                    await self._serve_connection()
                    if trio.current_time() - began > STEADY:
                        pause = BACKOFF_LEAST
                await trio.sleep(pause)
                pause = min(2 * pause, BACKOFF_MOST)
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """Closes the connection, for whoever connected and does not `run`."""
        if self._open is not None:
            stream, self._open = self._open[0], None
            self.on_up(False)
            await trio.aclose_forcefully(stream)

    async def flush(self) -> None:
        """Waits until the parent has acknowledged every report; the deadline is the caller's, since it may never do so."""
        while not (self._outbox.is_empty and self.backlog.is_empty):
            await self._acknowledged.wait()

    async def ticket(self) -> bytes:
        """A ticket that was not returned before: the welcome's, or a fresh one. The deadline is the caller's.

        Raises `TicketUnavailable` when the parent has none. Needs `run`, unless welcome brought one; one caller at a time.
        """
        if self._ticket is None:
            self._ticket_wanted = self._ticket_due = True
            self._wake.set()
            await self._ticket_answered.wait()
        ticket, self._ticket = self._ticket, None
        if ticket is None:
            raise TicketUnavailable("the parent has no ticket now")
        return ticket

    def send_state(self, name: StateName, reason: str = "") -> None:
        """Reports the state of the enclave; `reason` is a word of the code's own."""
        unix_ms = max(0, int(self._now() * 1000))
        self._report(lambda sequence: State(sequence=sequence, name=name, reason=reason, unix_ms=unix_ms))

    def journal(self, level: Level, event: str, /, **fields: int | str | bytes) -> None:
        """Reports an event, if its level is not below the gate's. Texts are cut to 200 characters, bytes to 64; nothing that is secret may
        be among them, and known secrets are masked all the same.

        `event` and the names are words of the code's own (link.py); anything else is a bug and raises `LocalProtocolError`.
        """
        if not self.gate.admits(level):
            return
        bounded = {name: _bounded(self.gate.masked(value)) for name, value in fields.items()}
        self._report(lambda sequence: Journal(sequence=sequence, level=level, event=event, fields=bounded))

    def log(self, process: str, stream: Stream, line: bytes, dropped: int = 0, *, is_partial: bool = False) -> None:
        """Reports a line of a customer process, cut to 32 KiB. `dropped` lines of that stream came before it and are not reported;
        `is_partial`: no line end follows it. While the parent does not keep up it waits in the backlog, and events overtake it."""
        self.backlog.lose(process, stream, dropped)
        self.backlog.add(process, stream, line, now=trio.current_time(), is_partial=is_partial)
        self._take_lines()  # at once while there is room, so that the exit of the process comes behind it
        self._wake.set()

    def finish_logs(self) -> None:
        """No line comes any more. What was dropped with no line of its stream behind it goes to the journal."""
        for process, stream, lines in self.backlog.finish():
            self.journal("warning", "log.dropped", process=process, stream=stream, lines=lines)
        self._wake.set()

    def exited(self, process: str, *, code: int | None = None, signal: int | None = None) -> None:
        """Reports the end of a customer process: its exit code, or the signal that ended it."""
        self._report(lambda sequence: Exit(sequence=sequence, process=process, code=code, signal=signal))

    def _report(self, message: Callable[[int], Sequenced]) -> None:
        self._outbox.events.push(lambda sequence: encode_message(message(sequence)))
        self._wake.set()

    async def _try_open(self) -> bool:
        """One attempt: connect, hello, welcome. False for whatever a parent can do wrong."""
        try:
            with trio.fail_after(WELCOME_DEADLINE):
                stream = await self._connect_stream()
                try:
                    connection = LinkConnection("enclave")
                    await stream.send_all(connection.send(Hello(boot_id=self._boot_id)))
                    while (welcome := connection.next_message()) is None:
                        connection.receive_data(await _some(stream))
                    assert isinstance(welcome, Welcome)
                except BaseException:
                    await trio.aclose_forcefully(stream)
                    raise
        except STREAM_ERRORS:
            return False
        self._open = (stream, connection)
        self.on_up(True)
        self._welcome = self._welcome or welcome
        if welcome.ticket is not None:
            self._take_ticket(welcome.ticket)
        return True

    async def _serve_connection(self) -> None:
        assert self._open is not None
        stream, connection = self._open
        reason = "closed"
        self._outbox.resend()
        self._ticket_due = self._ticket_wanted
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write, stream, connection)
                await self._read(stream, connection)
                nursery.cancel_scope.cancel()
        except* STREAM_ERRORS as group:
            reason = _reason(group.exceptions[0])
        finally:
            await self.aclose()
        self.journal("warning", "link.lost", reason=reason)

    async def _read(self, stream: trio.SocketStream, connection: LinkConnection) -> None:
        while True:
            while (message := connection.next_message()) is not None:
                self._take(message)
            with trio.fail_after(SILENCE_DEADLINE):
                data = await stream.receive_some(_CHUNK)
            if not data:
                return
            connection.receive_data(data)

    def _take(self, message: Message) -> None:
        """One message after welcome; the state machine has let only the parent's own pass. Floods coalesce: each wish is one flag."""
        match message:
            case Ack(sequence=sequence):
                self._outbox.acknowledge(sequence)
                self._acknowledged.set()
                self._acknowledged = trio.Event()
                self._wake.set()
            case Drain(deadline_ms=deadline_ms):
                self._on_drain(deadline_ms)
            case Ticket(ticket=ticket):
                self._take_ticket(ticket)
            case MetricsWanted():
                self._metrics_due = True
                self._wake.set()
            case Ping():
                self._pong_due = True
                self._wake.set()
            case _:
                pass

    def _take_ticket(self, ticket: bytes | None) -> None:
        self._ticket = ticket
        self._ticket_wanted = self._ticket_due = False
        self._ticket_answered.set()
        self._ticket_answered = trio.Event()

    async def _write(self, stream: trio.SocketStream, connection: LinkConnection) -> None:
        dropped = 0
        while True:
            self._wake = trio.Event()
            data = b"".join(connection.send(message) for message in self._answers())
            if self._outbox.events.dropped > dropped:
                dropped = self._outbox.events.dropped
                data += connection.send(Dropped(total=dropped))
            due = self._take_lines()
            data += self._outbox.take_unsent()
            if not data:
                with trio.move_on_at(due):
                    await self._wake.wait()
                continue
            with trio.fail_after(SEND_DEADLINE):
                await stream.send_all(data)

    def _take_lines(self) -> float:
        """Numbers lines while few are on their way; when to come again, if nobody wakes us before, as an acknowledgement does."""
        logs = self._outbox.logs
        while logs.size < self.backlog.window and len(logs) < _LINES_ON_THEIR_WAY:
            make = self.backlog.take(trio.current_time())
            if make is None:
                return self.backlog.due
            logs.push(_encoding(make))
        return math.inf

    def _answers(self) -> list[FromEnclave]:
        answers: list[FromEnclave] = []
        if self._pong_due:
            answers.append(Pong())
        if self._ticket_due:
            answers.append(TicketWanted())
        if self._metrics_due:
            answers.append(Metrics(values=self._metrics()))
        self._pong_due = self._ticket_due = self._metrics_due = False
        return answers


async def _some(stream: trio.SocketStream) -> bytes:
    data = await stream.receive_some(_CHUNK)
    if not data:
        raise Malformed("the parent closed before it welcomed us", "truncated")
    return bytes(data)


def _encoding(make: Numbered) -> Callable[[int], bytes]:
    return lambda sequence: encode_message(make(sequence))


def _bounded(value: int | str | bytes) -> int | str | bytes:
    if isinstance(value, str):
        return value[:TEXT_MAX].encode(errors="backslashreplace").decode()[:TEXT_MAX]
    return value[:BYTES_MAX] if isinstance(value, bytes) else value


def _reason(error: BaseException) -> str:
    if isinstance(error, ProtocolError):
        return error.reason
    return "timeout" if isinstance(error, trio.TooSlowError) else "broken"
