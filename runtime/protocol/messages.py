"""The messages of PROV/1 (protocol/README.md section 1.1), each with its encoding.

Every `decode` takes a peer's bytes and gives a value whose every field has the right type and size, or raises `Malformed`.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from runtime.protocol import cbor
from runtime.protocol.cbor import Value
from runtime.protocol.digest import SIZE, digest, digest_of
from runtime.protocol.errors import Malformed
from runtime.protocol.fields import Fields, uint

VERSION = 1
CONTENT_TYPE = "application/cbor"
DOCUMENT_MAX = 12288
HPKE_KEY_MAX = 1216
CSR_MAX = 2048
CHALLENGE_LIFETIME_MAX = 60

Purpose: TypeAlias = Literal["setup", "renew"]
Outcome: TypeAlias = Literal["live", "failed"]
Code: TypeAlias = Literal["busy", "unsupported_version", "challenge_gone", "refused", "revoked", "malformed", "internal"]


def one_of(value: str, choices: tuple[str, ...], what: str) -> str:
    """`value` when it is one of `choices`; else `Malformed`."""
    if value not in choices:
        raise Malformed(f"{what} must be one of {', '.join(choices)}")
    return value


def _suite(value: Value, what: str) -> int:
    return uint(value, what, most=255)


def _version(value: Value, what: str) -> int:
    return uint(value, what, most=255)


@dataclass(frozen=True, slots=True, kw_only=True)
class TicketRequest:
    """parent -> provisioner, authenticated by the parent's client certificate."""

    enclave_id: str
    instance_id: str

    def encode(self) -> bytes:
        return cbor.encode({0: self.enclave_id, 1: self.instance_id})

    @classmethod
    def decode(cls, data: bytes) -> "TicketRequest":
        fields = Fields(cbor.decode(data), "ticket-request")
        request = cls(enclave_id=fields.text(0, least=1, most=128), instance_id=fields.text(1, least=1, most=64))
        fields.finish()
        return request


@dataclass(frozen=True, slots=True, kw_only=True)
class TicketReply:
    """provisioner -> parent: a ticket of 32 bytes and the seconds it lives."""

    ticket: bytes
    lifetime: int

    def encode(self) -> bytes:
        return cbor.encode({0: self.ticket, 1: self.lifetime})

    @classmethod
    def decode(cls, data: bytes) -> "TicketReply":
        fields = Fields(cbor.decode(data), "ticket-reply")
        reply = cls(ticket=fields.octets(0, size=32), lifetime=fields.uint(1, most=86400))
        fields.finish()
        return reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """enclave -> provisioner: what it offers, and what it says it is. Nothing of it is believed before the evidence."""

    versions: tuple[int, ...]
    suites: tuple[int, ...]
    ticket: bytes
    client_nonce: bytes
    config_digest: bytes
    boot_id: bytes
    purpose: Purpose
    runtime: str
    previous_lease_id: bytes | None = None

    def encode(self) -> bytes:
        return cbor.encode(
            {
                0: self.versions,
                1: self.suites,
                2: self.ticket,
                3: self.client_nonce,
                4: self.config_digest,
                5: self.boot_id,
                6: self.purpose,
                7: self.runtime,
            }
            | ({} if self.previous_lease_id is None else {8: self.previous_lease_id})
        )

    @classmethod
    def decode(cls, data: bytes) -> "Hello":
        fields = Fields(cbor.decode(data), "hello")
        purpose: Purpose = "renew" if one_of(fields.text(6), get_args(Purpose), "hello.6") == "renew" else "setup"
        if (8 in fields) != (purpose == "renew"):
            raise Malformed("hello.8 goes with purpose renew, always and only")
        hello = cls(
            versions=fields.array(0, _version, least=1, most=16),
            suites=fields.array(1, _suite, least=1, most=16),
            ticket=fields.octets(2, size=32),
            client_nonce=fields.octets(3, size=32),
            config_digest=fields.octets(4, size=SIZE),
            boot_id=fields.octets(5, size=16),
            purpose=purpose,
            runtime=fields.text(7, most=64),
            previous_lease_id=fields.octets(8, size=16) if purpose == "renew" else None,
        )
        fields.finish()
        return hello


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """provisioner -> enclave. `lifetime` is in seconds, at most 60."""

    version: int
    suite: int
    challenge_id: bytes
    server_nonce: bytes
    lifetime: int
    provisioner_id: str

    def encode(self) -> bytes:
        return cbor.encode(
            {
                0: self.version,
                1: self.suite,
                2: self.challenge_id,
                3: self.server_nonce,
                4: self.lifetime,
                5: self.provisioner_id,
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> "Challenge":
        fields = Fields(cbor.decode(data), "challenge")
        challenge = cls(
            version=_version(fields.take(0), "challenge.0"),
            suite=_suite(fields.take(1), "challenge.1"),
            challenge_id=fields.octets(2, size=16),
            server_nonce=fields.octets(3, size=32),
            lifetime=fields.uint(4, most=CHALLENGE_LIFETIME_MAX),
            provisioner_id=fields.text(5, least=1, most=128),
        )
        fields.finish()
        return challenge


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """enclave -> provisioner: an attestation document for the challenge, and the keys that it commits to."""

    challenge_id: bytes
    document: bytes
    hpke_public_key: bytes
    certificate_request: bytes | None = None
    lease_proof: bytes | None = None

    def encode(self) -> bytes:
        message: dict[int, bytes] = {0: self.challenge_id, 1: self.document, 2: self.hpke_public_key}
        if self.certificate_request is not None:
            message[3] = self.certificate_request
        if self.lease_proof is not None:
            message[4] = self.lease_proof
        return cbor.encode(message)

    @classmethod
    def decode(cls, data: bytes) -> "Evidence":
        fields = Fields(cbor.decode(data), "evidence")
        evidence = cls(
            challenge_id=fields.octets(0, size=16),
            document=fields.octets(1, least=1, most=DOCUMENT_MAX),
            hpke_public_key=fields.octets(2, least=1, most=HPKE_KEY_MAX),
            certificate_request=fields.octets(3, least=1, most=CSR_MAX) if 3 in fields else None,
            lease_proof=fields.octets(4, size=SIZE) if 4 in fields else None,
        )
        fields.finish()
        return evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirm:
    """enclave -> provisioner: what became of the release. `proof` is an HMAC under the lease key."""

    lease_id: bytes
    outcome: Outcome
    proof: bytes

    def encode(self) -> bytes:
        return cbor.encode({0: self.lease_id, 1: self.outcome, 2: self.proof})

    @classmethod
    def decode(cls, data: bytes) -> "Confirm":
        fields = Fields(cbor.decode(data), "confirm")
        confirm = cls(
            lease_id=fields.octets(0, size=16),
            outcome="live" if one_of(fields.text(1), get_args(Outcome), "confirm.1") == "live" else "failed",
            proof=fields.octets(2, size=SIZE),
        )
        fields.finish()
        return confirm


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvError:
    """provisioner -> anyone: a code and nothing more. `retry_after` is in seconds."""

    code: str
    request_id: str
    retry_after: int | None = None

    def encode(self) -> bytes:
        message: dict[int, object] = {0: self.code, 1: self.request_id}
        return cbor.encode(message if self.retry_after is None else message | {2: self.retry_after})

    @classmethod
    def decode(cls, data: bytes) -> "ProvError":
        fields = Fields(cbor.decode(data), "error")
        error = cls(
            code=one_of(fields.text(0), get_args(Code), "error.0"),
            request_id=fields.text(1, most=64),
            retry_after=fields.uint(2, most=86400) if 2 in fields else None,
        )
        fields.finish()
        return error


def transcript(
    hello: Hello, challenge: Challenge, *, hpke_public_key: bytes, channel: bytes | None, certificate_request: bytes | None
) -> bytes:
    """`T`, 48 bytes: everything that both ends said and saw (protocol/README.md section 1.2).

    `channel` is the 32-byte TLS exporter, None where the measured config and the record both say "none".
    """
    commitment: dict[int, object] = {
        0: "prov/1 evidence",
        1: hello.versions,
        2: challenge.version,
        3: hello.suites,
        4: challenge.suite,
        5: digest(hello.ticket),
        6: challenge.challenge_id,
        7: challenge.server_nonce,
        8: hello.client_nonce,
        9: digest(hpke_public_key),
        10: "none" if channel is None else channel,
        11: hello.config_digest,
        12: hello.boot_id,
        13: challenge.provisioner_id,
        14: hello.purpose,
        15: hello.runtime,
    }
    if certificate_request is not None:
        commitment[16] = digest(certificate_request)
    if hello.previous_lease_id is not None:
        commitment[17] = hello.previous_lease_id
    return digest_of(commitment)
