"""A parent that lies, records, cuts and meddles: the one that every enclave must expect, for whoever tests an enclave against it.

Never baked, and no part of a parent that anybody runs. It carries both links of protocol/README.md section 2 and the ingress, in process
or behind listeners, and holds no key: what it can do, anybody who operates a parent instance can do. (Whoever holds the provisioner's
TLS key as well is in stolen_key.py.) Everything that it carries is in `recording`, as it came and before it was meddled with.
"""

import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import trio

from runtime.net.exact import receive_exactly
from runtime.net.serve import CONNECTION_ERRORS
from runtime.parent.tickets import NoTicket
from runtime.protocol.egress_frames import PREFIX_SIZE, Connect, Connected, Refused, decode_connect, encode_answer, remaining_size
from runtime.protocol.link import Ack, Exit, Hello, Journal, Log, Message, Sealed, Sequenced, State, Ticket, TicketWanted, Welcome
from runtime.protocol.link_state import LinkConnection
from runtime.protocol.proxy_header import ProxyHeader, encode_proxy_header

GARBAGE = bytes(range(0x7F, 0xFF)) * 8
"""What a parent says that has nothing to say: as a length it is too much, as CBOR and TLS it is nothing."""

_CHUNK = 64 * 1024

Direction: TypeAlias = Literal["out", "in"]
"""Seen from the enclave: what it sends, what it is sent."""
Handler: TypeAlias = Callable[[trio.SocketStream], Awaitable[None]]
Dial: TypeAlias = Callable[[Connect], Awaitable[trio.SocketStream]]
Stage: TypeAlias = Literal["connected", "greeted", "welcomed", "ticket"]
Act: TypeAlias = Literal["garbage", "close", "stall"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A place in what one connection carries: so many bytes, or so many whole TLS records, from its beginning."""

    direction: Direction
    octets: int | None = None
    records: int | None = None

    def offset(self, carried: bytes | bytearray) -> int | None:
        """Where it is in what was carried so far; None when that does not reach so far."""
        if self.octets is not None:
            return self.octets if len(carried) >= self.octets else None
        ends = [end for _, _, end in tls_records(carried)]
        assert self.records is not None
        if self.records == 0:
            return 0
        return ends[self.records - 1] if len(ends) >= self.records else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Treatment:
    """What is done to one egress connection. The default is an honest parent's: nothing.

    `answer` is given to the connect frame; `dial` connects to somebody else than was asked for; `cut` ends both connections at a
    place; `flip` inverts the bits of the byte after a place; `delay` is in seconds, before every chunk.
    """

    answer: Literal["connect", "refuse", "garbage", "stall", "close"] = "connect"
    dial: Dial | None = None
    cut: Place | None = None
    flip: Place | None = None
    delay: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """What one control connection is told, and what becomes of it at a stage of its life."""

    instance_id: str = "i-0123456789abcdef0"
    host_parameters: Mapping[str, str] = field(default_factory=dict)
    at: Mapping[Stage, Act] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Recorded:
    """What one connection carried in one direction, or has carried so far."""

    link: Literal["control", "egress", "ingress"]
    number: int
    direction: Direction
    data: bytearray = field(default_factory=bytearray, repr=False)


class HostileParent:
    """One parent of one enclave. What it does may be changed at any time and counts from the next connection on.

    `egress` and `control` give what is done to the n-th connection, from 1; `tickets` where tickets come from (`NoTicket`, None: no
    ticket). `dial` is where an honest parent connects to. Tasks run in `nursery`.
    """

    def __init__(self, nursery: trio.Nursery, *, dial: Dial, tickets: Callable[[], Awaitable[bytes | None]]) -> None:
        self.dial = dial
        self.tickets = tickets
        self.egress: Callable[[int], Treatment] = lambda _: Treatment()
        self.control: Callable[[int], Word] = lambda _: Word()
        self.recording: list[Recorded] = []
        self.reports: dict[int, Sequenced] = {}
        self._nursery = nursery
        self._numbers = {"control": 0, "egress": 0, "ingress": 0}
        self._reported = trio.Event()

    async def connect_control(self) -> trio.SocketStream:
        """The enclave's end of a control connection."""
        return await join(self._nursery, self.handle_control)

    async def connect_egress(self) -> trio.SocketStream:
        """The enclave's end of an egress connection."""
        return await join(self._nursery, self.handle_egress)

    def connections(self, link: Literal["control", "egress", "ingress"]) -> int:
        """How many there were."""
        return self._numbers[link]

    def recorded(self, link: Literal["control", "egress", "ingress"], direction: Direction) -> list[bytes]:
        """What each connection carried, in the order in which they came."""
        return [bytes(entry.data) for entry in self.recording if (entry.link, entry.direction) == (link, direction)]

    def journal(self, event: str) -> list[Journal]:
        """The enclave's reports of an event."""
        return [report for report in self.reports.values() if isinstance(report, Journal) and report.event == event]

    async def until(self, is_it: Callable[[Sequenced], bool]) -> Sequenced:
        """The first report that is it, now or to come; the deadline is the caller's."""
        while True:
            for report in self.reports.values():
                if is_it(report):
                    return report
            await self._reported.wait()

    async def until_state(self, *names: str) -> State:
        """The first report of one of these states."""
        state = await self.until(lambda report: isinstance(report, State) and report.name in names)
        assert isinstance(state, State)
        return state

    async def handle_egress(self, stream: trio.SocketStream) -> None:
        """Carries one egress connection as `egress` says."""
        sent, received = self._record("egress")
        treatment = self.egress(sent.number)
        request = decode_connect(await receive_exactly(stream, remaining_size(await receive_exactly(stream, PREFIX_SIZE))))
        match treatment.answer:
            case "garbage":
                await stream.send_all(GARBAGE)
                return
            case "refuse":
                await stream.send_all(encode_answer(Refused(reason="unreachable")))
                return
            case "stall":
                await trio.sleep_forever()
            case "close":
                return
            case "connect":
                pass
        async with await (treatment.dial or self.dial)(request) as far:
            await stream.send_all(encode_answer(Connected()))
            await _carry(stream, far, sent, received, treatment)

    async def handle_ingress(self, client: trio.SocketStream, connect: Callable[[], Awaitable[trio.SocketStream]]) -> None:
        """Carries a client's connection to the enclave, recording it."""
        sent, received = self._record("ingress")
        async with await connect() as enclave:
            await enclave.send_all(encode_proxy_header(ProxyHeader(source=None, destination=None)))
            await _carry(enclave, client, sent, received, Treatment())

    async def handle_control(self, stream: trio.SocketStream) -> None:
        """Speaks on one control connection as `control` says."""
        sent, received = self._record("control")
        word = self.control(sent.number)
        speech = _Speech(stream, sent, received, word.at)
        await speech.reach("connected")
        if not isinstance(await speech.hear(), Hello):
            return
        await speech.reach("greeted")
        await speech.say(Welcome(ticket=await self._ticket(), instance_id=word.instance_id, host_parameters=word.host_parameters))
        await speech.reach("welcomed")
        while (message := await speech.hear()) is not None:
            if isinstance(message, TicketWanted):
                await speech.reach("ticket")
                await speech.say(Ticket(ticket=await self._ticket()))
            elif isinstance(message, State | Journal | Log | Sealed | Exit):
                self.reports[message.sequence] = message
                self._reported.set()
                self._reported = trio.Event()
                await speech.say(Ack(sequence=message.sequence))

    async def _ticket(self) -> bytes | None:
        try:
            return await self.tickets()
        except NoTicket:
            return None

    def _record(self, link: Literal["control", "egress", "ingress"]) -> tuple[Recorded, Recorded]:
        self._numbers[link] += 1
        both = Recorded(link, self._numbers[link], "out"), Recorded(link, self._numbers[link], "in")
        self.recording += both
        return both


class _Speech:
    """The parent's end of a control connection, message by message, and the places at which it misbehaves."""

    def __init__(self, stream: trio.SocketStream, sent: Recorded, received: Recorded, at: Mapping[Stage, Act]) -> None:
        self._stream = stream
        self._connection = LinkConnection("parent")
        self._sent, self._received = sent, received
        self._at = at

    async def say(self, message: Ack | Ticket | Welcome) -> None:
        data = self._connection.send(message)
        self._received.data.extend(data)
        await self._stream.send_all(data)

    async def hear(self) -> Message | None:
        while (message := self._connection.next_message()) is None:
            data = await self._stream.receive_some(_CHUNK)
            if not data:
                return None
            self._sent.data.extend(data)
            self._connection.receive_data(bytes(data))
        return message

    async def reach(self, stage: Stage) -> None:
        match self._at.get(stage):
            case "garbage":
                await self._stream.send_all(GARBAGE)
            case "close":
                await trio.aclose_forcefully(self._stream)
            case "stall":
                await trio.sleep_forever()
            case None:
                pass


async def join(nursery: trio.Nursery, handler: Handler) -> trio.SocketStream:
    """A stream whose other end `handler` serves in `nursery`, until it returns or its connection ends."""
    await trio.lowlevel.checkpoint()
    near, far = (trio.SocketStream(trio.socket.from_stdlib_socket(end)) for end in socket.socketpair())
    nursery.start_soon(_serve, far, handler)
    return near


def dial_to(nursery: trio.Nursery, handler: Handler) -> Dial:
    """Connects to `handler`, in process, whoever was asked for."""

    async def dial(_: Connect) -> trio.SocketStream:
        return await join(nursery, handler)

    return dial


def tls_records(data: bytes | bytearray) -> Iterator[tuple[int, int, int]]:
    """(content type, start, end) of every whole TLS record (RFC 8446 section 5.1): all that a parent can see of a connection."""
    start = 0
    while start + 5 <= len(data):
        end = start + 5 + int.from_bytes(data[start + 3 : start + 5], "big")
        if end > len(data):
            return
        yield data[start], start, end
        start = end


async def _serve(stream: trio.SocketStream, handler: Handler) -> None:
    try:
        async with stream:
            await handler(stream)
    except* CONNECTION_ERRORS:
        pass  # a connection that ends badly is what this parent is for


async def _carry(
    enclave: trio.SocketStream, far: trio.SocketStream, sent: Recorded, received: Recorded, treatment: Treatment
) -> None:
    """Bytes both ways until both directions ended, or one broke or was cut: then both connections are closed."""
    async with trio.open_nursery() as nursery:

        async def pump(source: trio.SocketStream, sink: trio.SocketStream, recorded: Recorded) -> None:
            while data := await source.receive_some(_CHUNK):
                await trio.sleep(treatment.delay)
                passed, is_cut = _meddle(bytes(data), recorded, treatment)
                await sink.send_all(passed)
                if is_cut:
                    nursery.cancel_scope.cancel()
            await sink.send_eof()

        nursery.start_soon(pump, enclave, far, sent)
        nursery.start_soon(pump, far, enclave, received)
        if treatment.cut is not None and treatment.cut.offset(b"") == 0:
            nursery.cancel_scope.cancel()


def _meddle(data: bytes, recorded: Recorded, treatment: Treatment) -> tuple[bytes, bool]:
    """What is handed on of `data`, and whether that is all there will be."""
    begin = len(recorded.data)
    recorded.data.extend(data)
    passed, is_cut = bytearray(data), False
    for place, is_flip in ((treatment.flip, True), (treatment.cut, False)):
        if place is None or place.direction != recorded.direction:
            continue
        offset = place.offset(recorded.data)
        if is_flip and offset is not None and begin <= offset < begin + len(data):
            passed[offset - begin] ^= 0xFF
        elif not is_flip and offset is not None:
            del passed[max(0, offset - begin) :]
            is_cut = True
    return bytes(passed), is_cut
