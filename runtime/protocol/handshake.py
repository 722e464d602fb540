"""PROV/1 (protocol/README.md section 1): both state machines of one conversation, without I/O.

    enclave      new -> greeted -> challenged -> committed -> proven -> released -> confirmed
    provisioner  issued -> consumed -> released | refused        (the state of a challenge; kept in its store, one row each)

Any error moves the enclave's machine to `failed`, where it stays: a handshake that went wrong is begun anew, never mended.
The provisioner's machine is one-way as well: a challenge is consumed before anything of the evidence is judged.
Randomness, clock, keys and documents are arguments.
"""

import hmac
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum, auto
from hashlib import sha384

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from runtime.protocol import cbor
from runtime.protocol.binding import encode_prov
from runtime.protocol.bundle import BUNDLE_MAX, Bundle, Lease
from runtime.protocol.digest import digest, digest_of
from runtime.protocol.errors import LocalProtocolError, Refused
from runtime.protocol.messages import VERSION, Challenge, Confirm, Evidence, Hello, Outcome, transcript
from runtime.protocol.release import KeyStatement, ReleaseHeader, UnverifiedRelease, seal_info, sign_release
from runtime.protocol.sealing import SealingKey, Suite, open_sealed, seal

PUBLIC_KEY_FIELD_MAX = 1024
"""What fits into a document's public_key; a longer key is committed to by T alone."""


def document_public_key(hpke_public_key: bytes) -> bytes | None:
    """The public_key that the document must carry for this sealing key."""
    return hpke_public_key if len(hpke_public_key) <= PUBLIC_KEY_FIELD_MAX else None


def confirm_proof(lease_key: bytes, transcript: bytes, lease_id: bytes, outcome: Outcome) -> bytes:
    """The HMAC of a confirm, 48 bytes."""
    return hmac.digest(lease_key, cbor.encode(["prov/1 confirm", transcript, lease_id, outcome]), sha384)


def lease_proof(lease_key: bytes, transcript: bytes) -> bytes:
    """What shows in a renewal that the enclave holds the key of the lease before, 48 bytes."""
    return hmac.digest(lease_key, transcript, sha384)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnclaveClaims:
    """What the enclave is by its measured config, and what it pins. `root_keys` are Ed25519, 32 bytes each."""

    enclave_id: str
    epoch: int
    config_digest: bytes
    boot_id: bytes
    runtime: str
    root_keys: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentRequest:
    """What to ask the NSM for."""

    nonce: bytes
    user_data: bytes
    public_key: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """A release that passed every check of section 1.5, opened."""

    header: ReleaseHeader
    bundle: Bundle


class State(Enum):
    """Where the enclave's machine stands."""

    NEW = auto()
    GREETED = auto()
    CHALLENGED = auto()
    COMMITTED = auto()
    PROVEN = auto()
    RELEASED = auto()
    CONFIRMED = auto()
    FAILED = auto()


class EnclaveHandshake:
    """The enclave's end. Call the methods in the order in which they stand here; each raises `LocalProtocolError` out of turn.

    With `lease` it is a renewal of that lease, else the setup of a boot.
    """

    def __init__(self, claims: EnclaveClaims, lease: Lease | None = None) -> None:
        self.state = State.NEW
        self._claims = claims
        self._lease = lease
        self._hello: Hello
        self._challenge: Challenge
        self._evidence: Evidence
        self._transcript: bytes
        self._released: Released

    @contextmanager
    def _step(self, expected: State, following: State) -> Iterator[None]:
        if self.state is not expected:
            raise LocalProtocolError(f"a handshake that is {self.state.name} cannot become {following.name}")
        self.state = State.FAILED
        yield
        self.state = following

    def hello(self, *, ticket: bytes, client_nonce: bytes, suites: Sequence[Suite]) -> bytes:
        """The hello message, `suites` best first."""
        with self._step(State.NEW, State.GREETED):
            self._hello = Hello(
                versions=(VERSION,),
                suites=tuple(suites),
                ticket=ticket,
                client_nonce=client_nonce,
                config_digest=self._claims.config_digest,
                boot_id=self._claims.boot_id,
                purpose="setup" if self._lease is None else "renew",
                runtime=self._claims.runtime,
                previous_lease_id=None if self._lease is None else self._lease.lease_id,
            )
            return self._hello.encode()

    def receive_challenge(self, data: bytes) -> Challenge:
        """Raises `Malformed`, or `Refused` when it chooses what was not offered ("version_not_offered", "suite_not_offered")."""
        with self._step(State.GREETED, State.CHALLENGED):
            challenge = Challenge.decode(data)
            if challenge.version not in self._hello.versions:
                raise Refused("version_not_offered", f"the provisioner chose version {challenge.version}")
            if challenge.suite not in self._hello.suites:
                raise Refused("suite_not_offered", f"the provisioner chose suite {challenge.suite}")
            self._challenge = challenge
            return challenge

    def commit(self, *, hpke_public_key: bytes, channel: bytes | None, certificate_request: bytes | None) -> DocumentRequest:
        """What the document must commit to. `channel` is the TLS exporter over this challenge's id, None where the config says "none"."""
        with self._step(State.CHALLENGED, State.COMMITTED):
            self._transcript = transcript(
                self._hello,
                self._challenge,
                hpke_public_key=hpke_public_key,
                channel=channel,
                certificate_request=certificate_request,
            )
            self._evidence = Evidence(
                challenge_id=self._challenge.challenge_id,
                document=b"",
                hpke_public_key=hpke_public_key,
                certificate_request=certificate_request,
                lease_proof=None if self._lease is None else lease_proof(self._lease.key.reveal(), self._transcript),
            )
            return DocumentRequest(
                nonce=self._challenge.server_nonce,
                user_data=encode_prov(self._transcript),
                public_key=document_public_key(hpke_public_key),
            )

    def evidence(self, document: bytes) -> bytes:
        """The evidence message around the document that the NSM gave."""
        with self._step(State.COMMITTED, State.PROVEN):
            self._evidence = replace(self._evidence, document=document)
            return self._evidence.encode()

    def receive_release(self, data: bytes, *, key: SealingKey, now: int, last_bundle_version: int) -> Released:
        """Every check of section 1.5. `now` is unix seconds from a fresh document of the NSM, never the parent's clock.

        Raises `Malformed`, or `Refused` with "key_not_pinned", "key_not_valid_now", "bad_signature", "wrong_version", "wrong_suite",
        "wrong_enclave_id", "epoch_older", "seal_broken" or "bundle_older".
        """
        with self._step(State.PROVEN, State.RELEASED):
            release = UnverifiedRelease.decode(data)
            header = release.header
            statement = KeyStatement.open(header.key_statement, self._claims.root_keys, now=now)
            release.verify(statement.public_key, self._transcript)
            self._check_header(header)
            info = seal_info(self._transcript, digest(self._evidence.document), release.header_digest)
            bundle = Bundle.decode(open_sealed(key, release.sealed, info=info))
            if bundle.version < last_bundle_version:
                raise Refused("bundle_older", f"bundle {bundle.version} after {last_bundle_version}")
            self._released = Released(header=header, bundle=bundle)
            return self._released

    def _check_header(self, header: ReleaseHeader) -> None:
        if header.version != self._challenge.version:
            raise Refused("wrong_version", f"a release of version {header.version}")
        if header.suite != self._challenge.suite:
            raise Refused("wrong_suite", f"a release by suite {header.suite}")
        if header.enclave_id != self._claims.enclave_id:
            raise Refused("wrong_enclave_id", f"a release for {header.enclave_id!r}")
        if header.epoch < self._claims.epoch:
            raise Refused("epoch_older", f"a release for epoch {header.epoch}, this is {self._claims.epoch}")

    def confirm(self, outcome: Outcome) -> bytes:
        """The confirm message."""
        with self._step(State.RELEASED, State.CONFIRMED):
            lease_id = self._released.header.lease_id
            proof = confirm_proof(self._released.bundle.lease_key.reveal(), self._transcript, lease_id, outcome)
            return Confirm(lease_id=lease_id, outcome=outcome, proof=proof).encode()


class ChallengeState(Enum):
    """The provisioner's machine: what became of one challenge. The only moves are those of `NEXT_STATES`."""

    ISSUED = "issued"
    CONSUMED = "consumed"
    RELEASED = "released"
    REFUSED = "refused"


NEXT_STATES: dict[ChallengeState, frozenset[ChallengeState]] = {
    ChallengeState.ISSUED: frozenset({ChallengeState.CONSUMED}),
    ChallengeState.CONSUMED: frozenset({ChallengeState.RELEASED, ChallengeState.REFUSED}),
    ChallengeState.RELEASED: frozenset(),
    ChallengeState.REFUSED: frozenset(),
}


def choose(hello: Hello, *, suites: Collection[Suite]) -> tuple[int, Suite]:
    """(version, suite): the enclave's first offer that we allow. Raises `Refused` ("unsupported_version", "suite_refused")."""
    if VERSION not in hello.versions:
        raise Refused("unsupported_version", f"versions {hello.versions} offered")
    for offered in hello.suites:
        if offered in suites:
            return VERSION, Suite(offered)
    raise Refused("suite_refused", f"suites {hello.suites} offered")


def make_release(
    *,
    release_key: Ed25519PrivateKey,
    header: ReleaseHeader,
    bundle: Bundle,
    hpke_public_key: bytes,
    document: bytes,
    transcript: bytes,
) -> bytes:
    """The release message: the bundle sealed to the enclave's key for this transcript, document and header, then signed."""
    info = seal_info(transcript, digest(document), digest_of(header.to_value()))
    plaintext = bundle.encode()
    if len(plaintext) > BUNDLE_MAX:
        raise LocalProtocolError(f"a bundle of {len(plaintext)} bytes")
    sealed = seal(Suite(header.suite), hpke_public_key, plaintext, info=info)
    return sign_release(release_key, header, sealed, transcript)
