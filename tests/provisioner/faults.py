"""One fault for each check of PROV/1 section 1.4 that judges evidence, in the order of that section, ready to be combined."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from runtime.protocol.measurements import CONFIG_PCR, KEY_PCR, LIVE_PCR, instance_register, role_register
from tests.provisioner.forgery import Paper, flipped
from tests.provisioner.requests import named
from tests.support import der_writer as der
from tests.support.documents import altered, nitro_chain
from tests.support.prov import IMAGE, reference

Write = Callable[[Paper], object]


def _nothing(paper: Paper) -> None:
    """Leaves the document as it is."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """`before` spends time between ticket and hello, `after` between hello and evidence (seconds); the rest changes one thing each.

    `record` is set after hello, `paper` changes the document, `address` is where the evidence comes from, `request` asks for a
    certificate, `reuses` has another key spend the ticket first. `excludes` names faults that cannot stand beside this one.
    """

    name: str
    reason: str
    record: dict[str, Any] = field(default_factory=dict)
    paper: Write = _nothing
    before: float = 0.0
    after: float = 0.0
    address: str | None = None
    request: bytes | None = None
    reuses: bool = False
    excludes: frozenset[str] = frozenset()


def _chain(place: int, **changes: Any) -> Write:
    def write(paper: Paper) -> None:
        assert paper.plans == nitro_chain()
        paper.plans = altered(place, **changes)

    return write


def _set(**fields: Any) -> Write:
    return lambda paper: paper.fields.update(fields)


def _registers(values: dict[int, bytes]) -> Write:
    return lambda paper: paper.pcrs.update(values)


def _attribute(name: str, value: object) -> Write:
    return lambda paper: setattr(paper, name, value)


def _debug(paper: Paper) -> None:
    paper.pcrs.update(dict.fromkeys(IMAGE, bytes(48)))


FAULTS = (
    Fault(name="challenge late", reason="challenge_expired", after=61),
    Fault(name="ticket late", reason="ticket_expired", before=570, after=31),
    Fault(name="revoked", reason="record_inactive", record={"status": "revoked"}),
    Fault(name="unlisted instance", reason="instance_unknown", record={"instances": ("i-0fedcba9876543210",)}),
    Fault(name="no lease free", reason="lease_quota", record={"lease_quota": 0}),
    Fault(name="suite withdrawn", reason="suite_refused", record={"suites": (2, 3)}),
    Fault(name="no document", reason="doc_syntax", paper=_attribute("finish", lambda data: data + b"\0")),
    Fault(name="bad signature", reason="doc_signature", paper=_attribute("alter_signature", flipped)),
    Fault(name="no authority", reason="doc_chain", paper=_chain(2, basic=der.basic_constraints(ca=False))),
    Fault(name="stale", reason="doc_stale", paper=_attribute("skew", -61.0), excludes=frozenset({"from the future"})),
    Fault(name="from the future", reason="doc_future", paper=_attribute("skew", 6.0)),
    Fault(name="another nonce", reason="nonce_mismatch", paper=_set(nonce=b"n" * 32)),
    Fault(name="another transcript", reason="transcript_mismatch", paper=_set(user_data=b"u" * 60)),
    Fault(name="debug", reason="debug_enclave", paper=_debug),
    Fault(name="unknown image", reason="measurement_unknown", record={"reference": reference({0: b"\x7f" * 48})}),
    Fault(name="below the floor", reason="epoch_floor", record={"epoch_floor": 8}),
    Fault(name="another config", reason="config_mismatch", paper=_registers({CONFIG_PCR: b"\x16" * 48})),
    Fault(name="another key", reason="phase_not_setup", paper=_registers({KEY_PCR: b"\x17" * 48})),
    Fault(name="live", reason="phase_not_setup", paper=_registers({LIVE_PCR: b"\x18" * 48})),
    Fault(name="a role", reason="host_role", paper=_registers({3: role_register("arn:aws:iam::123456789012:role/other")})),
    Fault(name="another instance", reason="host_instance", paper=_registers({4: instance_register("i-0")})),
    Fault(name="another address", reason="source_ip", record={"strict_source_ip": True}, address="203.0.113.9"),
    Fault(name="a foreign name", reason="csr_invalid", request=named("evil.example.com")),
    Fault(name="ticket reused", reason="ticket_reused", reuses=True),
)

PAIRS = [(one, other) for one, other in combinations(FAULTS, 2) if other.name not in one.excludes]
