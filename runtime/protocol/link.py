"""The messages of the control link between an enclave and the parent instance (protocol/README.md section 2).

Neither end trusts the other: the parent may lie, stall or vanish, the enclave may send anything. A frame (framing.py) holds
`[type tstr, body map]`. Unknown types, unknown fields and values out of range are `Malformed`. Who may send what, and when, is
link_state.py's. Free text never travels here: states, levels and events are words, and a journal field holds a number, a short text
or a few bytes that the enclave's code chose to publish. `Log` alone carries bytes of the customer process.

```
word     = tstr                 ; [a-z][a-z0-9_.]*, at most 64 characters
reason   = word / ""
sequence = uint                 ; from 1, one count per boot over state, journal, log, sealed and exit

from the enclave
hello    = {0: [1*16 uint], 1: bstr .size 16}                       ; versions offered, boot_id
state    = {0: state-name, 1: reason, 2: uint, 3: sequence}         ; unix milliseconds
journal  = {0: sequence, 1: level, 2: word, 3: {* word => int / tstr / bstr}}   ; texts <= 200 characters, bytes <= 64, entries <= 32
log      = {0: sequence, 1: tstr, 2: "stdout" / "stderr", 3: bstr, 4: uint, ? 5: true}
                                ; process, line <= 32 KiB, lines dropped before it; 5: partial, no line end follows here
sealed   = {0: sequence, 1: bstr, 2: uint}      ; lines sealed to an operator's key (sealed_logs.py) <= 60 KiB, how many
exit     = {0: tstr, 1: uint / null, 2: uint / null, 3: sequence}   ; process, exit code, signal: exactly one is not null
dropped  = {0: uint}            ; sequenced messages that this boot's ring had to drop so far
metrics  = {0: {* tstr => int}} ; names of at most 110 printable ASCII characters, entries <= 512
ticket?  = {}                   ; asks for a fresh ticket
pong     = {}

from the parent
welcome  = {0: uint, 1: bstr .size 32 / null, 2: tstr, 3: {* tstr => tstr}}     ; version, ticket, instance_id, host parameters
ticket   = {0: bstr .size 32 / null}    ; null: the parent could not get one now
drain    = {0: uint}            ; milliseconds from now in which to finish
metrics? = {}
ack      = {0: uint}            ; every sequence up to and including this one has arrived
ping     = {}
```
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Self, TypeAlias, cast, get_args

from runtime.protocol import link_values as values
from runtime.protocol.cbor import Key, Value
from runtime.protocol.errors import LocalProtocolError, Malformed
from runtime.protocol.fields import Fields, text, uint
from runtime.protocol.framing import encode_frame
from runtime.protocol.link_values import JournalFields, Level, StateName, Stream

VERSION = 1
DRAIN_MAX_MS = 24 * 3600 * 1000
BOOT_ID_SIZE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class _Empty:
    def body(self) -> dict[int, object]:
        return {}

    @classmethod
    def read(cls, _fields: Fields) -> Self:
        return cls()


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """The enclave's first message. `boot_id` is 16 bytes, fresh at every boot."""

    KIND: ClassVar[str] = "hello"
    versions: tuple[int, ...] = (VERSION,)
    boot_id: bytes

    def body(self) -> dict[int, object]:
        return {0: list(self.versions), 1: self.boot_id}

    @classmethod
    def read(cls, fields: Fields) -> Self:
        return cls(versions=fields.array(0, uint, least=1, most=16), boot_id=fields.octets(1, size=BOOT_ID_SIZE))


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The enclave is now in state `name`. `unix_ms` is the enclave's clock, 0 before it has one."""

    KIND: ClassVar[str] = "state"
    sequence: int
    name: StateName
    reason: str = ""
    unix_ms: int

    def body(self) -> dict[int, object]:
        return {0: self.name, 1: self.reason, 2: self.unix_ms, 3: self.sequence}

    @classmethod
    def read(cls, fields: Fields) -> Self:
        return cls(
            name=values.one_of(fields.take(0), "state.0", values.STATES),
            reason=values.reason(fields.take(1), "state.1"),
            unix_ms=fields.uint(2),
            sequence=values.sequence(fields.take(3), "state.3"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Journal:
    """One event of the enclave's own making."""

    KIND: ClassVar[str] = "journal"
    sequence: int
    level: Level
    event: str
    fields: JournalFields = field(default_factory=dict)

    def body(self) -> dict[int, object]:
        return {0: self.sequence, 1: self.level, 2: self.event, 3: dict(self.fields)}

    @classmethod
    def read(cls, fields: Fields) -> Self:
        return cls(
            sequence=values.sequence(fields.take(0), "journal.0"),
            level=values.one_of(fields.take(1), "journal.1", values.LEVELS),
            event=values.word(fields.take(2), "journal.2"),
            fields={
                values.word(key, "journal.3's keys"): values.journal_value(value, f"journal.3.{key}")
                for key, value in values.entries(fields.take(3), "journal.3", values.ENTRIES_MAX)
            },
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """One line of a customer process, without its line end. `dropped` lines of that stream are missing before it.

    `is_partial`: the process has not ended the line here; the stream's next line goes on with it.
    """

    KIND: ClassVar[str] = "log"
    sequence: int
    process: str
    stream: Stream
    line: bytes = field(repr=False)
    dropped: int = 0
    is_partial: bool = False

    def body(self) -> dict[int, object]:
        body: dict[int, object] = {0: self.sequence, 1: self.process, 2: self.stream, 3: self.line, 4: self.dropped}
        return body | {5: True} if self.is_partial else body

    @classmethod
    def read(cls, fields: Fields) -> Self:
        return cls(
            sequence=values.sequence(fields.take(0), "log.0"),
            process=fields.text(1, least=1, most=64),
            stream=values.one_of(fields.take(2), "log.2", values.STREAMS),
            line=fields.octets(3, most=values.LINE_MAX),
            dropped=fields.uint(4),
            is_partial=5 in fields and values.true(fields.take(5), "log.5"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """So many lines of customer processes, sealed to a key that the parent does not have (sealed_logs.py)."""

    KIND: ClassVar[str] = "sealed"
    sequence: int
    sealed: bytes = field(repr=False)
    lines: int

    def body(self) -> dict[int, object]:
        return {0: self.sequence, 1: self.sealed, 2: self.lines}

    @classmethod
    def read(cls, fields: Fields) -> Self:
        return cls(
            sequence=values.sequence(fields.take(0), "sealed.0"),
            sealed=fields.octets(1, least=1, most=values.SEALED_MAX),
            lines=fields.uint(2, most=values.SEALED_LINES_MAX),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """A customer process ended: with an exit code, or by a signal."""

    KIND: ClassVar[str] = "exit"
    sequence: int
    process: str
    code: int | None = None
    signal: int | None = None

    def body(self) -> dict[int, object]:
        return {0: self.process, 1: self.code, 2: self.signal, 3: self.sequence}

    @classmethod
    def read(cls, fields: Fields) -> Self:
        process = fields.text(0, least=1, most=64)
        code, signal = fields.take(1), fields.take(2)
        if (code is None) == (signal is None):
            raise Malformed("exit holds either a code or a signal")
        return cls(
            process=process,
            code=None if code is None else uint(code, "exit.1", most=255),
            signal=None if signal is None else uint(signal, "exit.2", most=64),
            sequence=values.sequence(fields.take(3), "exit.3"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """So many sequenced messages of this boot were dropped unacknowledged, in all."""

    KIND: ClassVar[str] = "dropped"
    total: int

    def body(self) -> dict[int, object]:
        return {0: self.total}

    @classmethod
    def read(cls, fields: Fields) -> Self:
        return cls(total=fields.uint(0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """The answer to `MetricsWanted`: values by name."""

    KIND: ClassVar[str] = "metrics"
    values: Mapping[str, int]

    def body(self) -> dict[int, object]:
        return {0: dict(self.values)}

    @classmethod
    def read(cls, fields: Fields) -> Self:
        entries = values.entries(fields.take(0), "metrics.0", values.METRICS_MAX)
        return cls(values={values.metric_name(name): values.integer(value, f"metrics.0.{name}") for name, value in entries})


@dataclass(frozen=True, slots=True, kw_only=True)
class Welcome:
    """The parent's answer to hello. Without a `ticket` the enclave asks with `TicketWanted` when it needs one."""

    KIND: ClassVar[str] = "welcome"
    version: int = VERSION
    ticket: bytes | None = field(repr=False)
    instance_id: str
    host_parameters: Mapping[str, str] = field(default_factory=dict)

    def body(self) -> dict[int, object]:
        return {0: self.version, 1: self.ticket, 2: self.instance_id, 3: dict(self.host_parameters)}

    @classmethod
    def read(cls, fields: Fields) -> Self:
        return cls(
            version=fields.uint(0, most=255),
            ticket=values.ticket(fields.take(1), "welcome.1"),
            instance_id=fields.text(2, least=1, most=64),
            host_parameters={
                key: text(value, f"welcome.3.{key}", most=values.TEXT_MAX)
                for key, value in values.entries(fields.take(3), "welcome.3", values.PARAMETERS_MAX)
            },
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """The answer to `TicketWanted`; None: the parent could not get one now."""

    KIND: ClassVar[str] = "ticket"
    ticket: bytes | None = field(repr=False)

    def body(self) -> dict[int, object]:
        return {0: self.ticket}

    @classmethod
    def read(cls, fields: Fields) -> Self:
        return cls(ticket=values.ticket(fields.take(0), "ticket.0"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """Stop accepting, finish within `deadline_ms` milliseconds from now, power off."""

    KIND: ClassVar[str] = "drain"
    deadline_ms: int

    def body(self) -> dict[int, object]:
        return {0: self.deadline_ms}

    @classmethod
    def read(cls, fields: Fields) -> Self:
        return cls(deadline_ms=fields.uint(0, most=DRAIN_MAX_MS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """Every sequenced message up to and including `sequence` has arrived."""

    KIND: ClassVar[str] = "ack"
    sequence: int

    def body(self) -> dict[int, object]:
        return {0: self.sequence}

    @classmethod
    def read(cls, fields: Fields) -> Self:
        return cls(sequence=fields.uint(0))


class TicketWanted(_Empty):
    """The enclave asks for a fresh ticket."""

    __slots__ = ()
    KIND: ClassVar[str] = "ticket?"


class MetricsWanted(_Empty):
    """The parent asks for `Metrics`."""

    __slots__ = ()
    KIND: ClassVar[str] = "metrics?"


class Ping(_Empty):
    """The parent asks for a sign of life."""

    __slots__ = ()
    KIND: ClassVar[str] = "ping"


class Pong(_Empty):
    """The enclave's sign of life."""

    __slots__ = ()
    KIND: ClassVar[str] = "pong"


Sequenced: TypeAlias = State | Journal | Log | Sealed | Exit
FromEnclave: TypeAlias = Hello | Sequenced | Dropped | Metrics | TicketWanted | Pong
FromParent: TypeAlias = Welcome | Ticket | Drain | MetricsWanted | Ack | Ping
Message: TypeAlias = FromEnclave | FromParent

_TYPES: dict[str, type[Message]] = {kind.KIND: kind for kind in get_args(Message)}


def encode_message(message: Message) -> bytes:
    """The frame of `message`. What the other end would refuse is our bug: `LocalProtocolError`."""
    body = message.body()
    try:
        type(message).read(Fields(cast("dict[Key, Value]", body), message.KIND))
    except Malformed as error:
        raise LocalProtocolError(str(error)) from None
    return encode_frame([message.KIND, body])


def decode_message(value_untrusted: Value) -> Message:
    """The message that one frame's value holds. Raises `Malformed`, for an unknown type with reason "unknown_type"."""
    match value_untrusted:
        case [str(kind), dict(body)]:
            pass
        case _:
            raise Malformed("a frame must be [type, body]")
    if kind not in _TYPES:
        raise Malformed(f"unknown message type {kind!r:.40}", "unknown_type")
    fields = Fields(body, kind)
    message = _TYPES[kind].read(fields)
    fields.finish()
    return message
