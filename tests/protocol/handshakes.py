"""One handshake up to the release, and a maker of releases for it in which any part can be other than it should be."""

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from runtime.protocol import cbor, cose
from runtime.protocol.bundle import Bundle, Secret, SecretValue
from runtime.protocol.digest import digest, digest_of
from runtime.protocol.handshake import EnclaveClaims, EnclaveHandshake
from runtime.protocol.messages import Challenge, Hello, transcript
from runtime.protocol.release import KeyStatement, ReleaseHeader, seal_info
from runtime.protocol.sealing import SealingKey, Suite, generate_key, seal

ROOT = Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)
SECOND_ROOT = Ed25519PrivateKey.from_private_bytes(b"\x02" * 32)
RELEASE_KEY = Ed25519PrivateKey.from_private_bytes(b"\x03" * 32)
STRANGER = Ed25519PrivateKey.from_private_bytes(b"\x04" * 32)
NOW = 1_800_000_000
BEGIN, END = NOW - 86_400, NOW + 86_400
LEASE_ID = b"\x1e" * 16
DOCUMENT = b"a document of the NSM"
CHANNEL = b"\x0c" * 32
CLAIMS = EnclaveClaims(
    enclave_id="payments-prod",
    epoch=7,
    config_digest=b"\x0d" * 48,
    boot_id=b"\x0b" * 16,
    runtime="enclave-runtime/1.4.0",
    root_keys=(SECOND_ROOT.public_key().public_bytes_raw(), ROOT.public_key().public_bytes_raw()),
)
CHALLENGE = Challenge(
    version=1, suite=1, challenge_id=b"\x06" * 16, server_nonce=b"\x07" * 32, lifetime=60, provisioner_id="provisioner-1"
)
BUNDLE = Bundle(
    version=5,
    lease_key=SecretValue(b"\x5e" * 32),
    secrets={"API_KEY": Secret(delivery="env", value=SecretValue(b"value"))},
    identities=(),
)


@cache
def sealing_key(suite: Suite = Suite.X25519) -> SealingKey:
    return generate_key(suite)


def statement(*, root: Ed25519PrivateKey = ROOT, key: Ed25519PrivateKey = RELEASE_KEY, begin: int = BEGIN, end: int = END) -> bytes:
    public = key.public_key().public_bytes_raw()
    return KeyStatement(kid="2026-a", public_key=public, not_before=begin, not_after=end).sign(root)


def header(**changes: Any) -> ReleaseHeader:
    fields: dict[str, Any] = {
        "version": 1,
        "suite": 1,
        "enclave_id": "payments-prod",
        "lease_id": LEASE_ID,
        "issued": NOW,
        "lease_seconds": 86_400,
        "renew_after_seconds": 43_200,
        "epoch": 7,
        "key_statement": statement(),
    }
    return ReleaseHeader(**fields | changes)


@dataclass(frozen=True, kw_only=True)
class Proven:
    """An enclave's handshake that waits for its release. `fresh` is a copy of it, so that each test spends its own."""

    handshake: EnclaveHandshake
    transcript: bytes
    key: SealingKey

    def fresh(self) -> EnclaveHandshake:
        return copy(self.handshake)

    def release(
        self,
        *,
        signer: Ed25519PrivateKey = RELEASE_KEY,
        changes: Mapping[str, Any] | None = None,
        extra: Mapping[int, Any] | None = None,
        bundle: bytes | None = None,
        signed_for: bytes | None = None,
        sealed_for: bytes | None = None,
        document: bytes = DOCUMENT,
        header_digest: bytes | None = None,
        to: SealingKey | None = None,
    ) -> bytes:
        """A release. `changes` and `extra` are fields and further keys of the header, the others what it is signed or sealed for."""
        content = header(**{"suite": int(self.key.suite)} | dict(changes or {})).to_value() | dict(extra or {})
        info = seal_info(
            self.transcript if sealed_for is None else sealed_for,
            digest(document),
            digest_of(content) if header_digest is None else header_digest,
        )
        recipient = to or self.key
        sealed = seal(recipient.suite, recipient.public, BUNDLE.encode() if bundle is None else bundle, info=info)
        payload = cbor.encode({0: content, 1: sealed})
        return cose.sign_ed25519(signer, payload, external_aad=self.transcript if signed_for is None else signed_for)


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a handshake begins with; the defaults are those of every test that does not care."""

    claims: EnclaveClaims = CLAIMS
    challenge: Challenge = CHALLENGE
    suites: tuple[Suite, ...] = (Suite.X25519,)
    ticket: bytes = b"\x0a" * 32
    nonce: bytes = b"\x09" * 32
    channel: bytes | None = CHANNEL
    request: bytes | None = None
    key: SealingKey = field(default_factory=sealing_key)


def proven(start: Start | None = None) -> Proven:
    start = start or Start()
    handshake = EnclaveHandshake(start.claims)
    hello = Hello.decode(handshake.hello(ticket=start.ticket, client_nonce=start.nonce, suites=start.suites))
    handshake.receive_challenge(start.challenge.encode())
    handshake.commit(hpke_public_key=start.key.public, channel=start.channel, certificate_request=start.request)
    handshake.evidence(DOCUMENT)
    expected = transcript(
        hello, start.challenge, hpke_public_key=start.key.public, channel=start.channel, certificate_request=start.request
    )
    return Proven(handshake=handshake, transcript=expected, key=start.key)


def of_suite(suite: Suite) -> Start:
    """A start whose challenge chose this suite."""
    return Start(challenge=replace(CHALLENGE, suite=int(suite)), suites=tuple(Suite), key=sealing_key(suite))
