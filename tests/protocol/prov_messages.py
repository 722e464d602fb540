"""Values of every message of PROV/1: one whole and one smallest of each, and strategies for all that are legal."""

from dataclasses import dataclass
from typing import Any, Protocol

from hypothesis import strategies as st

from runtime.protocol.messages import Challenge, Confirm, Evidence, Hello, ProvError, TicketReply, TicketRequest


class Message(Protocol):
    """What all seven have in common."""

    def encode(self) -> bytes: ...

    @classmethod
    def decode(cls, data: bytes) -> Any: ...


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One message: its class, all its legal values, and the map of one of them, by hand from PROTOCOL's CDDL."""

    message: type[Message]
    values: st.SearchStrategy[Any]
    fields: dict[int, Any]
    optional: frozenset[int] = frozenset()


def octets(size: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=size, max_size=size)


def text(least: int, most: int) -> st.SearchStrategy[str]:
    return st.text(st.characters(exclude_categories=["Cs"]), min_size=least, max_size=most)


BYTE = st.integers(0, 255)
NUMBERS = st.lists(BYTE, min_size=1, max_size=16).map(tuple)
UINT = st.integers(0, 2**64 - 1)

HELLO_FIELDS = {
    0: [1],
    1: [3, 1],
    2: bytes(range(32)),
    3: b"\x03" * 32,
    4: b"\x04" * 48,
    5: b"\x05" * 16,
    6: "setup",
    7: "enclave-runtime/1.4.0",
}

_HELLO = st.builds(
    Hello,
    versions=NUMBERS,
    suites=NUMBERS,
    ticket=octets(32),
    client_nonce=octets(32),
    config_digest=octets(48),
    boot_id=octets(16),
    purpose=st.just("setup"),
    runtime=text(0, 64),
)
_RENEWING = st.builds(
    lambda hello, lease: Hello(
        versions=hello.versions,
        suites=hello.suites,
        ticket=hello.ticket,
        client_nonce=hello.client_nonce,
        config_digest=hello.config_digest,
        boot_id=hello.boot_id,
        purpose="renew",
        runtime=hello.runtime,
        previous_lease_id=lease,
    ),
    _HELLO,
    octets(16),
)

KINDS = (
    Kind(
        message=TicketRequest,
        values=st.builds(TicketRequest, enclave_id=text(1, 128), instance_id=text(1, 64)),
        fields={0: "payments-prod", 1: "i-0123456789abcdef0"},
    ),
    Kind(
        message=TicketReply,
        values=st.builds(TicketReply, ticket=octets(32), lifetime=st.integers(0, 86400)),
        fields={0: bytes(32), 1: 600},
    ),
    Kind(message=Hello, values=_HELLO | _RENEWING, fields=HELLO_FIELDS | {6: "renew", 8: b"\x08" * 16}),
    Kind(
        message=Challenge,
        values=st.builds(
            Challenge,
            version=BYTE,
            suite=BYTE,
            challenge_id=octets(16),
            server_nonce=octets(32),
            lifetime=st.integers(0, 60),
            provisioner_id=text(1, 128),
        ),
        fields={0: 1, 1: 3, 2: bytes(16), 3: bytes(32), 4: 60, 5: "provisioner-1"},
    ),
    Kind(
        message=Evidence,
        values=st.builds(
            Evidence,
            challenge_id=octets(16),
            document=st.binary(min_size=1, max_size=400),
            hpke_public_key=st.binary(min_size=1, max_size=100),
            certificate_request=st.none() | st.binary(min_size=1, max_size=100),
            lease_proof=st.none() | octets(48),
        ),
        fields={0: bytes(16), 1: b"document", 2: bytes(32), 3: b"request", 4: bytes(48)},
        optional=frozenset({3, 4}),
    ),
    Kind(
        message=Confirm,
        values=st.builds(Confirm, lease_id=octets(16), outcome=st.sampled_from(["live", "failed"]), proof=octets(48)),
        fields={0: bytes(16), 1: "live", 2: bytes(48)},
    ),
    Kind(
        message=ProvError,
        values=st.builds(
            ProvError,
            code=st.sampled_from(["busy", "unsupported_version", "challenge_gone", "refused", "revoked", "malformed", "internal"]),
            request_id=text(0, 64),
            retry_after=st.none() | st.integers(0, 86400),
        ),
        fields={0: "busy", 1: "0123456789abcdef", 2: 5},
        optional=frozenset({2}),
    ),
)
BY_NAME = {kind.message.__name__: kind for kind in KINDS}
