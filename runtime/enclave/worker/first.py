"""The worker's end of its link with PID 1 (runtime/protocol/worker_link.py). When PID 1 is gone, so is the worker."""

import errno
from collections.abc import Callable, Mapping

import trio

from runtime.protocol.errors import Malformed
from runtime.protocol.framing import FrameDecoder
from runtime.protocol.link_values import BYTES_MAX, TEXT_MAX, Level
from runtime.protocol.worker_link import (
    WORKER_FRAME_MAX,
    Answer,
    Ask,
    Configure,
    ConfirmNow,
    DrainNow,
    Event,
    FromFirst,
    FromWorker,
    Identities,
    LinkIsUp,
    Ping,
    Pong,
    Ready,
    Ticket,
    TicketWanted,
    Watch,
    WorkerIdentity,
    decode_from_first,
    encode,
)

_CHUNK = 64 * 1024
_UNSENT_MAX = 4096


class First:
    """PID 1, seen from a worker: an `NsmDevice`, a source of tickets, a journal, and what it wants of this worker."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._frames = FrameDecoder(limit=WORKER_FRAME_MAX)
        self._out, self._unsent = trio.open_memory_channel[bytes | trio.Event](_UNSENT_MAX)
        self._asked = 0
        self._answers: dict[int, bytes | int | None] = {}
        self._abandoned: set[int] = set()
        self._answered = trio.Condition()
        self._tickets, self._ticket = trio.open_memory_channel[bytes | None](4)
        self._confirm_outcome: ConfirmNow | None = None
        self.confirm_asked = trio.Event()
        self.drain_asked = trio.Event()
        self.is_customer_ready = False
        self.is_link_up = False
        self.on_identities: Callable[[tuple[WorkerIdentity, ...]], None] = lambda _identities: None
        self.on_watch: Callable[[str, bool], None] = lambda _process, _is_on: None

    async def configure(self) -> Configure:
        """The first message."""
        message = await self._receive()
        if not isinstance(message, Configure):
            raise Malformed("PID 1 did not configure this worker")
        self.is_customer_ready = message.is_ready
        return message

    async def run(self) -> None:
        """Takes and sends messages until PID 1 closes the link."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send_forever)
            while (message := await self._receive()) is not None:
                await self._take(message)
            nursery.cancel_scope.cancel()

    def tell(self, message: FromWorker) -> None:
        """Sends a message, never waiting: what PID 1 does not take in time is lost, and with it this worker's use."""
        self._out.send_nowait(encode(message))

    async def flush(self) -> None:
        """Waits until everything that was told has been sent."""
        done = trio.Event()
        self._out.send_nowait(done)
        await done.wait()

    def note(self, event: str, fields: Mapping[str, object], level: Level = "info") -> None:
        """An event for the journal, its values within the journal's bounds; others are left out."""
        kept: dict[str, int | str | bytes] = {}
        for name, value in fields.items():
            match value:
                case float():
                    kept[f"{name}_us"] = round(value * 1e6)
                case str():
                    kept[name] = value.encode(errors="backslashreplace").decode()[:TEXT_MAX]
                case bytes():
                    kept[name] = value[:BYTES_MAX]
                case int():
                    kept[name] = value
        self.tell(Event(level, event, kept))

    async def ticket(self) -> bytes | None:
        """A ticket from the parent; None when it has none."""
        self.tell(TicketWanted())
        return await self._ticket.receive()

    @property
    def confirm_outcome(self) -> ConfirmNow:
        """What PID 1 wants confirmed; after `confirm_asked`."""
        assert self._confirm_outcome is not None
        return self._confirm_outcome

    @property
    def is_occupied(self) -> bool:
        """As `NsmDevice`: whether a call whose caller has gone has not returned yet."""
        return any(answer is None for answer in self._answers.values())

    async def exchange(self, request: bytes) -> bytes:
        """As `NsmDevice`, by way of PID 1, which alone has the device. Raises OSError."""
        self._asked += 1
        number = self._asked
        self._answers[number] = None
        self.tell(Ask(number, request))
        try:
            async with self._answered:
                while (outcome := self._answers[number]) is None:
                    await self._answered.wait()
        except trio.Cancelled:
            self._abandoned.add(number)
            raise
        del self._answers[number]
        if isinstance(outcome, int):
            raise OSError(outcome, errno.errorcode.get(outcome, "unknown error"))
        return outcome

    async def _take(self, message: FromFirst) -> None:
        match message:
            case Ping():
                self.tell(Pong())
            case Identities(identities):
                self.on_identities(identities)
            case Answer(number, outcome):
                async with self._answered:
                    if number in self._abandoned:
                        self._abandoned.discard(number)
                        del self._answers[number]
                    elif number in self._answers:
                        self._answers[number] = outcome
                        self._answered.notify_all()
            case Ticket(ticket):
                await self._tickets.send(ticket)
            case Ready(is_ready):
                self.is_customer_ready = is_ready
            case ConfirmNow():
                self._confirm_outcome = message
                self.confirm_asked.set()
            case DrainNow():
                self.drain_asked.set()
            case LinkIsUp(is_up):
                self.is_link_up = is_up
            case Watch(process, is_on):
                self.on_watch(process, is_on)
            case Configure():
                raise Malformed("a second configure")

    async def _receive(self) -> FromFirst | None:
        while (frame := self._frames.next_frame()) is None:
            data = await self._stream.receive_some(_CHUNK)
            if not data:
                return None
            self._frames.receive_data(bytes(data))
        return decode_from_first(frame[0])

    async def _send_forever(self) -> None:
        async for sent in self._unsent:
            if isinstance(sent, trio.Event):
                sent.set()
            else:
                await self._stream.send_all(sent)
