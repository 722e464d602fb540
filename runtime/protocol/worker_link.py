"""The messages between PID 1 and its worker processes, over an inherited socket pair.

A worker parses what strangers send, so PID 1 reads its messages as strictly as a peer's, and lets it have only what its role needs
(runtime/enclave/process/worker_policy.py). PID 1 is believed by the worker. A frame (framing.py) holds one array:

```
from PID 1
["configure", role, enclave.toml bstr, boot_id bstr, egress tstr, [* identity], is_ready bool, share uint, lease / null]
                                        ; egress: the endpoint of the parent's egress port; share: how many workers share the limits
identity = [[+ name tstr], [+ DER bstr], PKCS#8 key bstr]               ; the chain is leaf first
lease = [lease_id bstr, lease_key bstr, bundle version uint]            ; the one to renew: for the role "renew" alone
["ping"]                                                                ; answered with "pong", by a worker that is not stuck
["identities", [+ identity]]                                            ; what to serve from now on, in place of what was configured
["answer", number uint, response bstr / errno uint]                     ; of the security module, to the request of that number
["ticket", bstr / null]
["ready", bool]                                                         ; whether the customer's processes take requests
["confirm", "live" / "failed"]
["drain", milliseconds uint]
["link", bool]                                                          ; whether the parent is there
["watch", process tstr, bool]                                           ; begin or end to ask whether this process is ready
from a worker
["started"]
["pong"]
["ask", number uint, request bstr]                                      ; for the security module
["ticket?"]
["event", level tstr, event tstr, {* word => int / tstr / bstr}]        ; for the journal, within the journal's limits
["requests", bstr]                      ; whole lines of the request or egress log, at most 64 KiB: bytes, which PID 1 does not read
["counted", {* metric tstr => uint}]    ; what is to be added to the sums of these metrics
["released", bundle bstr, lease_id bstr, PKCS#8 key bstr / null, renew_after uint]
                                        ; the key of the certificate request; in how many seconds the release should be renewed
["failed", reason tstr, detail tstr]
["probed", process tstr, bool]                                          ; the process has become ready, or is not any more
["finished"]
```
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, assert_never, get_args

from runtime.protocol import link_values as values
from runtime.protocol.bundle import BUNDLE_MAX, Lease, SecretValue
from runtime.protocol.cbor import Value
from runtime.protocol.errors import Malformed
from runtime.protocol.fields import array, octets, text, uint
from runtime.protocol.framing import encode_frame
from runtime.protocol.link_values import JournalFields, Level
from runtime.protocol.messages import Outcome
from runtime.protocol.nsm import REQUEST_MAX, RESPONSE_MAX

WORKER_FRAME_MAX = BUNDLE_MAX + (1 << 18)
"""Bytes of a frame's body: a bundle and its keys."""

Role: TypeAlias = Literal["provision", "renew", "ingress", "api", "egress"]
ROLES: tuple[Role, ...] = get_args(Role)
_KEY_MAX = 1 << 14
_LEASE_KEY_SIZE = 32
REQUESTS_MAX = 1 << 16
"""Bytes of lines in one message."""
COUNTS_MAX = 1024
"""Metrics in one message."""


@dataclass(frozen=True, slots=True)
class WorkerIdentity:
    """A TLS identity on its way to a worker."""

    names: tuple[str, ...]
    chain: tuple[bytes, ...]
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Configure:
    """The first message to a worker: everything that it needs to know."""

    role: Role
    config: bytes
    boot_id: bytes
    egress: str
    identities: tuple[WorkerIdentity, ...]
    is_ready: bool
    share: int
    lease: Lease | None = None


@dataclass(frozen=True, slots=True)
class Ping:
    """Asks whether the worker still takes turns."""


@dataclass(frozen=True, slots=True)
class Identities:
    """What is served from the next handshake on."""

    identities: tuple[WorkerIdentity, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the security module said to a request: its response, or the errno of a call that failed."""

    number: int
    outcome: bytes | int


@dataclass(frozen=True, slots=True)
class Ticket:
    """A ticket; None when the parent has none."""

    ticket: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Ready:
    """Whether the customer's processes take requests now."""

    is_ready: bool


@dataclass(frozen=True, slots=True)
class ConfirmNow:
    """The enclave has become live, or has failed to: tell the provisioner."""

    outcome: Outcome


@dataclass(frozen=True, slots=True)
class DrainNow:
    """Stop accepting, finish what is in flight, then end."""

    deadline_ms: int


@dataclass(frozen=True, slots=True)
class LinkIsUp:
    """Whether the control link to the parent is up."""

    is_up: bool


@dataclass(frozen=True, slots=True)
class Watch:
    """A process has started, or has ended: begin or end to ask it whether it is ready."""

    process: str
    is_on: bool


@dataclass(frozen=True, slots=True)
class Started:
    """The worker serves."""


@dataclass(frozen=True, slots=True)
class Pong:
    """The worker takes turns."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A request for the security module."""

    number: int
    request: bytes


@dataclass(frozen=True, slots=True)
class TicketWanted:
    """The worker needs a ticket."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something for the journal."""

    level: Level
    event: str
    fields: JournalFields


@dataclass(frozen=True, slots=True)
class Requests:
    """Lines of the request log, each with its line end."""

    lines: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Counted:
    """So much has been added to these metrics since they were last told of."""

    numbers: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Released:
    """What the provisioner released: the bundle as it was sealed, and the TLS key that was made for the request (PKCS#8).

    `renew_after` is in seconds from now.
    """

    bundle: bytes = field(repr=False)
    lease_id: bytes
    tls_key: bytes | None = field(repr=False)
    renew_after: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The worker's task has failed for good."""

    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Probed:
    """A watched process has become ready, or is not any more."""

    process: str
    is_ready: bool


@dataclass(frozen=True, slots=True)
class Finished:
    """Nothing is left to do."""


FromFirst: TypeAlias = Configure | Ping | Identities | Answer | Ticket | Ready | ConfirmNow | DrainNow | LinkIsUp | Watch
FromWorker: TypeAlias = Started | Pong | Ask | TicketWanted | Event | Requests | Counted | Released | Failed | Probed | Finished


def encode(message: FromFirst | FromWorker) -> bytes:
    """One frame."""
    return encode_frame(_array(message), limit=WORKER_FRAME_MAX)


def _array(message: FromFirst | FromWorker) -> list[object]:
    match message:
        case Configure(role, config, boot_id, egress, identities, is_ready, share, lease):
            renewed = None if lease is None else [lease.lease_id, lease.key.reveal(), lease.bundle_version]
            return ["configure", role, config, boot_id, egress, _carried(identities), is_ready, share, renewed]
        case Ping():
            return ["ping"]
        case Pong():
            return ["pong"]
        case Identities(identities):
            return ["identities", _carried(identities)]
        case Answer(number, outcome):
            return ["answer", number, outcome]
        case Ticket(ticket):
            return ["ticket", ticket]
        case Ready(is_ready):
            return ["ready", is_ready]
        case ConfirmNow(outcome):
            return ["confirm", outcome]
        case DrainNow(deadline_ms):
            return ["drain", deadline_ms]
        case LinkIsUp(is_up):
            return ["link", is_up]
        case Watch(process, is_on):
            return ["watch", process, is_on]
        case Probed(process, is_ready):
            return ["probed", process, is_ready]
        case Started():
            return ["started"]
        case Ask(number, request):
            return ["ask", number, request]
        case TicketWanted():
            return ["ticket?"]
        case Event(level, event, fields):
            return ["event", level, event, dict(fields)]
        case Requests(lines):
            return ["requests", lines]
        case Counted(numbers):
            return ["counted", dict(numbers)]
        case Released(bundle, lease_id, tls_key, renew_after):
            return ["released", bundle, lease_id, tls_key, renew_after]
        case Failed(reason, detail):
            return ["failed", reason, detail]
        case Finished():
            return ["finished"]
        case _:
            assert_never(message)


def _carried(identities: tuple[WorkerIdentity, ...]) -> list[object]:
    return [[each.names, each.chain, each.key] for each in identities]


def decode_from_worker(value_untrusted: Value) -> FromWorker:
    """A worker's message. Raises `Malformed`."""
    match value_untrusted:
        case ["started"]:
            return Started()
        case ["pong"]:
            return Pong()
        case ["ask", number, request]:
            return Ask(uint(number, "ask's number"), octets(request, "ask's request", most=REQUEST_MAX))
        case ["ticket?"]:
            return TicketWanted()
        case ["event", level, event, fields]:
            return Event(
                values.one_of(level, "event's level", values.LEVELS),
                values.word(event, "event's name"),
                {
                    values.word(name, "event's field names"): values.journal_value(entry, f"event's {name}")
                    for name, entry in values.entries(fields, "event's fields", values.ENTRIES_MAX)
                },
            )
        case ["requests", lines]:
            return Requests(octets(lines, "requests' lines", most=REQUESTS_MAX))
        case ["counted", numbers]:
            return Counted(
                {
                    values.metric_name(name): uint(number, "counted's numbers")
                    for name, number in values.entries(numbers, "counted's numbers", COUNTS_MAX)
                }
            )
        case ["released", bundle, lease_id, tls_key, renew_after]:
            return Released(
                octets(bundle, "released's bundle", most=BUNDLE_MAX),
                octets(lease_id, "released's lease", size=16),
                None if tls_key is None else octets(tls_key, "released's key", most=_KEY_MAX),
                uint(renew_after, "released's renew_after"),
            )
        case ["failed", reason, detail]:
            return Failed(values.word(reason, "failed's reason"), text(detail, "failed's detail", most=500))
        case ["probed", process, bool(is_ready)]:
            return Probed(text(process, "probed's process", most=64), is_ready)
        case ["finished"]:
            return Finished()
        case _:
            raise Malformed("not a worker's message", "unknown_type")


def decode_from_first(value: Value) -> FromFirst:
    """A message of PID 1. Raises `Malformed`."""
    match value:
        case ["configure", role, config, boot_id, egress, identities, bool(is_ready), share, lease]:
            return Configure(
                values.one_of(role, "role", ROLES),
                octets(config, "config"),
                octets(boot_id, "boot_id", size=16),
                text(egress, "egress"),
                array(identities, "identities", _identity),
                is_ready,
                uint(share, "share", most=64),
                None if lease is None else _lease(lease),
            )
        case ["ping"]:
            return Ping()
        case ["identities", identities]:
            return Identities(array(identities, "identities", _identity, least=1))
        case ["answer", number, bytes(response)]:
            return Answer(uint(number, "number"), octets(response, "response", most=RESPONSE_MAX))
        case ["answer", number, errno]:
            return Answer(uint(number, "number"), uint(errno, "errno", most=4095))
        case ["ticket", ticket]:
            return Ticket(values.ticket(ticket, "ticket"))
        case ["ready", bool(is_ready)]:
            return Ready(is_ready)
        case ["confirm", "live" | "failed" as outcome]:
            return ConfirmNow("live" if outcome == "live" else "failed")
        case ["link", bool(is_up)]:
            return LinkIsUp(is_up)
        case ["watch", process, bool(is_on)]:
            return Watch(text(process, "process", most=64), is_on)
        case ["drain", milliseconds]:
            return DrainNow(uint(milliseconds, "milliseconds", most=86_400_000))
        case _:
            raise Malformed("not a message of PID 1", "unknown_type")


def _identity(value: Value, what: str) -> WorkerIdentity:
    match value:
        case [names, chain, key]:
            return WorkerIdentity(
                array(names, f"{what}'s names", text, least=1),
                array(chain, f"{what}'s chain", lambda der, what: octets(der, what, most=_KEY_MAX), least=1, most=8),
                octets(key, f"{what}'s key", most=_KEY_MAX),
            )
        case _:
            raise Malformed(f"{what} must be names, a chain and a key")


def _lease(value: Value) -> Lease:
    match value:
        case [lease_id, key, bundle_version]:
            return Lease(
                lease_id=octets(lease_id, "the lease's id", size=16),
                key=SecretValue(octets(key, "the lease's key", size=_LEASE_KEY_SIZE)),
                bundle_version=uint(bundle_version, "the lease's bundle version"),
            )
        case _:
            raise Malformed("a lease must be an id, a key and a bundle version")
